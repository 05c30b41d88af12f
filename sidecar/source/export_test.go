package source

// KeptName is the name of the file that keeps a place's download.
func KeptName(p Place) string { return fileName(p.identity()) }

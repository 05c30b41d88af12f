package bundle

import (
	"cmp"
	"regexp"
	"strings"
	"time"
)

// Older reports whether revision goes before active. It is true only if both are decimal
// integers, both semantic versions (https://semver.org, with an optional v before them),
// or both times as in RFC 3339; of other revisions none is older.
func Older(revision, active string) bool {
	for _, compare := range []func(a, b string) (int, bool){compareIntegers, compareVersions, compareTimes} {
		if order, ok := compare(revision, active); ok {
			return order < 0
		}
	}
	return false
}

func compareIntegers(a, b string) (int, bool) {
	if !isDecimal(a) || !isDecimal(b) {
		return 0, false
	}
	return compareDecimals(a, b), true
}

func isDecimal(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r < '0' || r > '9' })
}

// compareDecimals compares digits of any number.
func compareDecimals(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), strings.Compare(a, b))
}

func compareTimes(a, b string) (int, bool) {
	first, err := time.Parse(time.RFC3339, a)
	second, err2 := time.Parse(time.RFC3339, b)
	return first.Compare(second), err == nil && err2 == nil
}

func compareVersions(a, b string) (int, bool) {
	// Three numbers and a prerelease; the build metadata behind + doesn't order.
	form := regexp.MustCompile(`^v?(\d+)\.(\d+)\.(\d+)(?:-([0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?$`)
	first, second := form.FindStringSubmatch(a), form.FindStringSubmatch(b)
	if first == nil || second == nil {
		return 0, false
	}
	return cmp.Or(
		compareDecimals(first[1], second[1]),
		compareDecimals(first[2], second[2]),
		compareDecimals(first[3], second[3]),
		comparePrereleases(first[4], second[4]),
	), true
}

// comparePrereleases goes by rule 11 of semantic versions: none is greater than any,
// numbers go before words, more parts after fewer.
func comparePrereleases(a, b string) int {
	if a == "" || b == "" {
		return cmp.Compare(len(b), len(a))
	}
	left, right := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(left), len(right)) {
		numeric, both := isDecimal(left[i]), isDecimal(right[i])
		order := strings.Compare(left[i], right[i])
		switch {
		case numeric && both:
			order = compareDecimals(left[i], right[i])
		case numeric:
			order = -1
		case both:
			order = 1
		}
		if order != 0 {
			return order
		}
	}
	return cmp.Compare(len(left), len(right))
}

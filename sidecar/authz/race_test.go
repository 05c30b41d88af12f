//go:build race

package authz_test

const raced = true

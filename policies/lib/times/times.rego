# METADATA
# title: Times
# description: |
#   Windows of time, judged by the time that the app sends along as context.time: the same
#   question is then answered alike whenever it is asked, in a test as well. It is the app's word;
#   whoever the app lets choose it, chooses the window.
#
#   Times are RFC 3339 with whole seconds or up to nine digits after them, a T between date and
#   time and a Z or an offset at the end, of the years 1700 to 2199; those that Postern writes
#   are among them. Zones are given as offsets from UTC, such as "+02:00" or "Z": the names of
#   zones need a database that a container may lack.
#
#   Every function here answers true or is undefined. A time, hour, weekday or offset that is
#   missing, malformed or of another type is never within a window.
# scope: package
# schemas:
#   - input: schema.input
package lib.times

# METADATA
# title: The time of the question
# description: The instant of context.time, in nanoseconds since 1970.
# scope: document
# custom:
#   example: times.now == times.instant("2026-03-04T10:30:00Z")
now := instant(input.context.time)

# METADATA
# title: The instant of a time
# description: |
#   Nanoseconds since 1970, to count with: times.instant(until) - times.instant(from) is a
#   duration.
# scope: document
# custom:
#   example: times.instant("2026-03-04T11:30:00.000000000+01:00") == times.now
instant(text) := nanoseconds if {
	# The parser is an error for what isn't a time, and passes over some mistakes.
	is_string(text)
	regex.match(_time, text)
	nanoseconds := time.parse_rfc3339_ns(text)
}

# METADATA
# title: Not before a time
# scope: document
# custom:
#   example: times.not_before("2026-03-04T10:30:00Z")
not_before(from) if now >= instant(from)

# METADATA
# title: Before a time
# description: The time itself isn't before itself.
# scope: document
# custom:
#   example: times.before("2026-03-04T10:30:00.000000001Z")
before(until) if now < instant(until)

# METADATA
# title: Between two times
# description: From the first on, and before the second.
# scope: document
# custom:
#   example: times.between("2026-03-04T10:00:00Z", "2026-03-04T11:00:00Z")
between(from, until) if {
	not_before(from)
	before(until)
}

# METADATA
# title: Within hours of the day
# description: |
#   From the first on, and before the second, as HH:MM at an offset from UTC. Hours that end
#   before they begin go over midnight; 24:00 is the end of the day. Equal ones hold nothing.
# scope: document
# custom:
#   example: times.within_hours("09:00", "17:00", "+01:00")
within_hours(from, until, offset) if {
	[hour, minute, second] := time.clock(_local(offset))
	_spans(_of_day(from), _end_of_day(until), ((((hour * 60) + minute) * 60) + second) * 1000000000)
}

# METADATA
# title: On weekdays
# description: |
#   Whether the day of the time, at an offset from UTC, is among these: an array or a set of
#   English names, such as "Monday".
# scope: document
# custom:
#   example: times.on_weekdays(["Monday", "Wednesday"], "+01:00")
on_weekdays(days, offset) if {
	type_name(days) in {"array", "set"} # what is in an object isn't looked at
	time.weekday(_local(offset)) in days
}

_spans(from, until, moment) if {
	from <= moment
	moment < until
}

_spans(from, until, moment) if {
	until < from
	from <= moment
}

_spans(from, until, moment) if {
	until < from
	moment < until
}

# Nanoseconds since midnight.
_of_day(hour) := instant(sprintf("1970-01-01T%s:00Z", [hour])) if is_string(hour)

_end_of_day("24:00") := ((24 * 60) * 60) * 1000000000

_end_of_day(hour) := _of_day(hour)

# The instant whose UTC date and clock are those at the offset. All nine digits stand before
# the offset, so that none in it can add to them.
_local(offset) := now - instant(sprintf("1970-01-01T00:00:00.000000000%s", [offset])) if is_string(offset)

_time := concat("", ["^(", _date, "|", _leap_day, ")", `T([01]\d|2[0-3])(:[0-5]\d){2}(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)$`])

_date := concat("", [
	`(1[7-9]|2[01])\d\d-`, "(", concat("|", [
		`(0[13578]|1[02])-(0[1-9]|[12]\d|3[01])`,
		`(0[469]|11)-(0[1-9]|[12]\d|30)`,
		`02-(0[1-9]|1\d|2[0-8])`,
	]),
	")",
])

_leap_day := `((1[7-9]|2[01])(0[48]|[2468][048]|[13579][26])|2000)-02-29`

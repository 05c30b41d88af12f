package lib.times_test

import data.lib.times

at(moment) := {"context": {"time": moment}}

# A Wednesday.
wednesday := at("2026-03-04T10:30:00Z")

test_the_forms_of_a_time[text] if {
	some text, nanoseconds in {
		"2026-03-04T10:30:00Z": 1772620200000000000,
		"2026-03-04T10:30:00.000000000Z": 1772620200000000000,
		"2026-03-04T10:30:00.123456789Z": 1772620200123456789,
		"2026-03-04T10:30:00.5Z": 1772620200500000000,
		"2026-03-04T12:30:00+02:00": 1772620200000000000,
		"2026-03-04T05:00:00.1-05:30": 1772620200100000000,
		"2026-03-04T10:30:00-00:00": 1772620200000000000,
		"1970-01-01T00:00:00Z": 0,
		"2024-02-29T00:00:00Z": 1709164800000000000,
		"2000-02-29T00:00:00Z": 951782400000000000,
		"2023-12-31T23:59:59.999999999Z": 1704067199999999999,
	}
	times.instant(text) == nanoseconds
	times.now == nanoseconds with input as at(text)
}

# The farthest times are within what nanoseconds can count.
test_the_first_and_the_last if {
	times.instant("1700-01-01T00:00:00+23:59") < times.instant("1700-01-01T00:00:00Z")
	times.instant("2199-12-31T23:59:59.999999999-23:59") > times.instant("2199-12-31T23:59:59.999999999Z")
}

bad := {
	"null": null,
	"true": true,
	"a number": 1772620200,
	"nanoseconds": 1772620200000000000,
	"an array": ["2026-03-04T10:30:00Z"],
	"an object": {"time": "2026-03-04T10:30:00Z"},
	"empty": "",
	"a date": "2026-03-04",
	"no zone": "2026-03-04T10:30:00",
	"no seconds": "2026-03-04T10:30Z",
	"a space for the T": "2026-03-04 10:30:00Z",
	"lower case": "2026-03-04t10:30:00z",
	"a zone by name": "2026-03-04T10:30:00 Europe/Berlin",
	"ten digits": "2026-03-04T10:30:00.1234567890Z",
	"no digits": "2026-03-04T10:30:00.Z",
	"a comma": "2026-03-04T10:30:00,5Z",
	"month 13": "2026-13-04T10:30:00Z",
	"month 0": "2026-00-04T10:30:00Z",
	"day 0": "2026-03-00T10:30:00Z",
	"the 32nd": "2026-03-32T10:30:00Z",
	"April 31": "2026-04-31T10:30:00Z",
	"February 30": "2024-02-30T10:30:00Z",
	"no leap year": "2026-02-29T10:30:00Z",
	"a century": "2100-02-29T10:30:00Z",
	"another century": "1900-02-29T10:30:00Z",
	"hour 24": "2026-03-04T24:00:00Z",
	"minute 60": "2026-03-04T10:60:00Z",
	"a leap second": "2026-03-04T23:59:60Z",
	"offset hour 24": "2026-03-04T10:30:00+24:00",
	"offset minute 60": "2026-03-04T10:30:00+01:60",
	"offset without a colon": "2026-03-04T10:30:00+0100",
	"one digit": "2026-3-4T1:30:00Z",
	"before 1700": "1699-12-31T23:59:59Z",
	"after 2199": "2200-01-01T00:00:00Z",
	"a long year": "12026-03-04T10:30:00Z",
	"a signed year": "-2026-03-04T10:30:00Z",
	"a space before": " 2026-03-04T10:30:00Z",
	"a line after": "2026-03-04T10:30:00Z\n",
	"other digits": "٢٠٢٦-03-04T10:30:00Z",
	"more after": "2026-03-04T10:30:00Z2026-03-04T10:30:00Z",
}

always := {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"}

test_what_is_no_time_is_never_within[note] if {
	some note, moment in bad
	not times.now with input as at(moment)
	not _is_an_instant(moment)
	not times.not_before("1700-01-01T00:00:00Z") with input as at(moment)
	not times.before("2199-12-31T00:00:00Z") with input as at(moment)
	not times.between("1700-01-01T00:00:00Z", "2199-12-31T00:00:00Z") with input as at(moment)
	not times.within_hours("00:00", "24:00", "Z") with input as at(moment)
	not times.on_weekdays(always, "Z") with input as at(moment)
}

_is_an_instant(moment) if _ = times.instant(moment)

test_no_time_is_never_within[note] if {
	some note, asked in {"no context": {}, "empty": {"context": {}}, "null": {"context": null}, "text": {"context": "2026-03-04T10:30:00Z"}, "no question": 7}
	not times.now with input as asked
	not times.not_before("1700-01-01T00:00:00Z") with input as asked
	not times.before("2199-12-31T00:00:00Z") with input as asked
	not times.between("1700-01-01T00:00:00Z", "2199-12-31T00:00:00Z") with input as asked
	not times.within_hours("00:00", "24:00", "Z") with input as asked
	not times.on_weekdays(always, "Z") with input as asked
}

test_a_window_of_what_is_no_time_is_none[note] if {
	some note, moment in bad
	not times.not_before(moment) with input as wednesday
	not times.before(moment) with input as wednesday
	not times.between(moment, "2199-12-31T00:00:00Z") with input as wednesday
	not times.between("1700-01-01T00:00:00Z", moment) with input as wednesday
}

test_the_edges_of_a_window if {
	times.not_before("2026-03-04T10:30:00Z") with input as wednesday
	not times.not_before("2026-03-04T10:30:00.000000001Z") with input as wednesday
	times.before("2026-03-04T10:30:00.000000001Z") with input as wednesday
	not times.before("2026-03-04T10:30:00Z") with input as wednesday
	times.between("2026-03-04T10:30:00Z", "2026-03-04T10:30:00.000000001Z") with input as wednesday
	not times.between("2026-03-04T10:00:00Z", "2026-03-04T10:30:00Z") with input as wednesday
	not times.between("2026-03-04T11:00:00Z", "2026-03-04T12:00:00Z") with input as wednesday
	not times.between("2026-03-04T12:00:00Z", "2026-03-04T10:00:00Z") with input as wednesday
}

test_a_window_in_several_zones if {
	times.between("2026-03-04T12:00:00+02:00", "2026-03-04T06:00:00-05:00") with input as wednesday
	not times.between("2026-03-04T10:00:00-01:00", "2026-03-04T12:00:00Z") with input as wednesday
}

test_hours_of_the_day[note] if {
	some note, example in {
		"within": {"from": "09:00", "until": "17:00", "offset": "Z", "within": true},
		"from": {"from": "10:30", "until": "17:00", "offset": "Z", "within": true},
		"until": {"from": "09:00", "until": "10:30", "offset": "Z", "within": false},
		"a minute more": {"from": "09:00", "until": "10:31", "offset": "+00:00", "within": true},
		"before": {"from": "10:31", "until": "17:00", "offset": "-00:00", "within": false},
		"farther east": {"from": "20:00", "until": "20:01", "offset": "+09:30", "within": true},
		"farther west": {"from": "05:30", "until": "05:31", "offset": "-05:00", "within": true},
		"on the day before": {"from": "22:30", "until": "22:31", "offset": "-12:00", "within": true},
		"overnight, neither": {"from": "22:00", "until": "06:00", "offset": "Z", "within": false},
		"overnight, evening": {"from": "10:30", "until": "06:00", "offset": "Z", "within": true},
		"overnight, morning": {"from": "22:00", "until": "10:31", "offset": "Z", "within": true},
		"overnight, over": {"from": "22:00", "until": "10:30", "offset": "Z", "within": false},
		"all day": {"from": "00:00", "until": "24:00", "offset": "Z", "within": true},
		"the end of the day": {"from": "10:30", "until": "24:00", "offset": "Z", "within": true},
		"until midnight": {"from": "10:30", "until": "00:00", "offset": "Z", "within": true},
		"equal": {"from": "10:30", "until": "10:30", "offset": "Z", "within": false},
	}
	within := is_within(example.from, example.until, example.offset) with input as wednesday
	within == example.within
}

is_within(from, until, offset) if times.within_hours(from, until, offset)

else := false

test_the_last_moment_of_an_hour if {
	moment := at("2026-03-04T16:59:59.999999999Z")
	times.within_hours("09:00", "17:00", "Z") with input as moment
	not times.within_hours("17:00", "18:00", "Z") with input as moment
}

test_hours_before_1970 if {
	times.within_hours("23:00", "24:00", "Z") with input as at("1969-12-31T23:30:00Z")
	not times.within_hours("00:00", "23:00", "Z") with input as at("1969-12-31T23:30:00Z")
}

test_what_is_no_hour_holds_nothing[note] if {
	some note, hour in {
		"number": 9, "null": null, "array": ["09:00"], "object": {"hour": "09:00"}, "empty": "",
		"seconds": "09:00:00", "one digit": "9:00", "hour 25": "25:00", "hour 24": "24:01", "minute 60": "09:60",
		"a space": " 09:00", "afternoon": "9am", "a zone": "09:00Z", "a time": "00:00:00Z",
	}
	not times.within_hours(hour, "24:00", "Z") with input as wednesday
	not times.within_hours("00:00", hour, "Z") with input as wednesday
	not times.within_hours(hour, "00:00", "Z") with input as wednesday
}

test_the_end_of_the_day_begins_nothing if {
	not times.within_hours("24:00", "17:00", "Z") with input as wednesday
}

test_what_is_no_offset_holds_nothing[note] if {
	some note, offset in {
		"number": 2, "null": null, "array": ["Z"], "empty": "", "hours": "+02", "no colon": "+0200", "no sign": "02:00",
		"hour 24": "+24:00", "minute 60": "+02:60", "by name": "Europe/Berlin", "UTC": "UTC", "lower case": "z",
		"digits": "5Z", "a fraction": ".5Z", "a space": " +02:00", "a line": "Z\n",
	}
	not times.within_hours("00:00", "24:00", offset) with input as wednesday
	not times.on_weekdays(always, offset) with input as wednesday
}

test_weekdays[note] if {
	some note, example in {
		"the day": {"days": ["Wednesday"], "offset": "Z", "on": true},
		"one of them": {"days": {"Monday", "Wednesday"}, "offset": "+02:00", "on": true},
		"another": {"days": ["Tuesday", "Thursday"], "offset": "Z", "on": false},
		"the day before, farther west": {"days": ["Tuesday"], "offset": "-11:00", "on": true},
		"the day after, farther east": {"days": ["Thursday"], "offset": "+13:30", "on": true},
		"none": {"days": [], "offset": "Z", "on": false},
		"lower case": {"days": ["wednesday"], "offset": "Z", "on": false},
		"short": {"days": ["Wed"], "offset": "Z", "on": false},
		"a text": {"days": "Wednesday", "offset": "Z", "on": false},
		"an object": {"days": {"Wednesday": "Wednesday"}, "offset": "Z", "on": false},
		"numbers": {"days": [3], "offset": "Z", "on": false},
		"null": {"days": null, "offset": "Z", "on": false},
	}
	on := is_on(example.days, example.offset) with input as wednesday
	on == example.on
}

is_on(days, offset) if times.on_weekdays(days, offset)

else := false

test_every_day_of_a_week[day] if {
	some day, name in {"02": "Monday", "03": "Tuesday", "04": "Wednesday", "05": "Thursday", "06": "Friday", "07": "Saturday", "08": "Sunday"}
	times.on_weekdays([name], "Z") with input as at(sprintf("2026-03-%sT00:00:00Z", [day]))
	not times.on_weekdays(always - {name}, "Z") with input as at(sprintf("2026-03-%sT23:59:59Z", [day]))
}

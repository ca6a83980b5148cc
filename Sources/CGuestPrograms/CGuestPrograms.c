// SPDX-License-Identifier: Apache-2.0
#include "CGuestPrograms.h"

#define LABELS(name) extern const uint8_t cguest_##name##_start[], cguest_##name##_end[];
CGUEST_PROGRAMS(LABELS)

static const struct {
	const char *name;
	const uint8_t *start, *end;
} programs[] = {
#define ENTRY(name) { #name, cguest_##name##_start, cguest_##name##_end },
	CGUEST_PROGRAMS(ENTRY)
};

size_t cguest_program_count(void)
{
	return sizeof(programs) / sizeof(programs[0]);
}

struct cguest_program cguest_program_at(size_t position)
{
	if (position >= cguest_program_count())
		position = cguest_program_count() - 1;
	return (struct cguest_program) {
		.name = programs[position].name,
		.code = programs[position].start,
		.count = (size_t)(programs[position].end - programs[position].start),
	};
}

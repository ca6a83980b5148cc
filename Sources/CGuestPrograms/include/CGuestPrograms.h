// SPDX-License-Identifier: Apache-2.0
//
// The guest programs as bytes of this binary's read-only data: where each begins and ends.
#ifndef CGUESTPROGRAMS_H
#define CGUESTPROGRAMS_H

#include <stddef.h>
#include <stdint.h>

/// Every program, by the name of its labels in the assembly sources.
#define CGUEST_PROGRAMS(X)                                                                    \
	X(store_1) X(store_2) X(store_4) X(store_8)                                           \
	X(load_1) X(load_2) X(load_4) X(load_8)                                               \
	X(pair_1) X(pair_2) X(pair_4) X(pair_8)                                               \
	X(mixed) X(mixed_aligned) X(straddle) X(sixteen)                                      \
	X(rep_stos_1) X(rep_stos_2) X(rep_stos_4) X(rep_stos_8)                               \
	X(rep_movs_out_1) X(rep_movs_out_2) X(rep_movs_out_4) X(rep_movs_out_8)               \
	X(rep_movs_in_1) X(rep_movs_in_2) X(rep_movs_in_4) X(rep_movs_in_8)                   \
	X(out_1) X(out_2) X(out_4) X(in_1) X(in_2) X(in_4)                                    \
	X(rep_outs_1) X(rep_outs_2) X(rep_outs_4) X(rep_ins_1) X(rep_ins_2) X(rep_ins_4)      \
	X(burst_1) X(burst_2) X(burst_4) X(burst_8) X(burst_out_1) X(burst_out_2) X(burst_out_4) \
	X(timed_load_1) X(timed_load_2) X(timed_load_4) X(timed_load_8)                       \
	X(timed_store_1) X(timed_store_2) X(timed_store_4) X(timed_store_8)                   \
	X(timed_in_1) X(timed_in_2) X(timed_in_4) X(timed_out_1) X(timed_out_2) X(timed_out_4) \
	X(mailbox) X(script)

struct cguest_program {
	const char *_Nonnull name;
	const uint8_t *_Nonnull code;
	size_t count;
};

/// How many programs there are.
size_t cguest_program_count(void);

/// The program at `position` in the list; the last one for a position beyond it.
struct cguest_program cguest_program_at(size_t position);

#endif

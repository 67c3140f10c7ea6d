/* SPDX-License-Identifier: GPL-2.0 OR BSD-2-Clause */
/*
 * Histograms of durations, as values of GADGET_TOTALS: gadget_observe(&value->histogram, nanoseconds).
 *
 * Each power of two is divided into 8 buckets of equal width, so the error of a value is less than one eighth; below 64
 * ns, buckets are 8 ns wide. kubectl_gadget/rows/histogram.py has the same bounds. A histogram has 2 KiB, so a key for
 * each process or connection of a busy node would take too much memory.
 */
#pragma once

#include <gadget/totals.h>

/* 8 below 64 ns, 8 for each power of two from there up to 2^40 ns (18 minutes), and one for all longer durations. */
#define GADGET_BUCKETS 281

#define GADGET_MOST_ATTEMPTS 64

typedef __u64 gadget_buckets[GADGET_BUCKETS];

struct gadget_histogram {
	__u64 count;
	gadget_duration total;
	gadget_duration max;
	gadget_buckets buckets;
};

/* Computed by the client from the sums; in a record, it follows the value. */
struct gadget_percentiles {
	gadget_duration mean;
	gadget_duration p50;
	gadget_duration p90;
	gadget_duration p99;
};

/* The index of the highest set bit of a number above 0. */
static __always_inline __u32 gadget_log2(__u64 number)
{
	__u32 bit = 0;

	for (__u32 step = 32; step; step /= 2) {
		if (number >> step) {
			number >>= step;
			bit += step;
		}
	}
	return bit;
}

static __always_inline __u32 gadget_bucket_of(__u64 duration)
{
	__u32 bit;

	if (duration < 64)
		return duration / 8;
	bit = gadget_log2(duration);
	if (bit >= 40)
		return GADGET_BUCKETS - 1;
	return (bit - 5) * 8 + ((duration >> (bit - 3)) & 7);
}

static __always_inline void gadget_observe(struct gadget_histogram *histogram, __u64 duration)
{
	__u32 bucket = gadget_bucket_of(duration);
	__u64 highest = histogram->max;

	if (bucket >= GADGET_BUCKETS)
		return;
	gadget_add(histogram->count, 1);
	gadget_add(histogram->total, duration);
	gadget_add(histogram->buckets[bucket], 1);
	/* Fails if another CPU has changed the maximum in between. */
	for (int i = 0; i < GADGET_MOST_ATTEMPTS && duration > highest; i++)
		highest = __sync_val_compare_and_swap(&histogram->max, highest, duration);
}

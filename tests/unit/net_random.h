// SPDX-License-Identifier: MIT
// Random networks: options in combinations that no list has. Batches of net_data_init fit.
#ifndef TESTS_UNIT_NET_RANDOM_H
#define TESTS_UNIT_NET_RANDOM_H

#include "net_cases.h"

// The network of a number; pointers go into *out. Many contradict themselves and are refused.
void net_random_init(struct net_case *out, uint32_t number);

#endif

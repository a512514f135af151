// SPDX-License-Identifier: MIT
// One of everything that can be measured, on a layer and a network, for tests of devices that
// interpose.c plays.
#ifndef TESTS_VULKAN_MEASURED_H
#define TESTS_VULKAN_MEASURED_H

#include "budget.h"
#include "check.h"
#include "fixture.h"
#include "host.h"
#include "interpose.h"
#include "net_cases.h"

#include <vkmoe/bench.h>

enum { N_TOKENS = 6, N_RUNS = 5, WIDTH = 64, MAX_DISPATCHES = 512 };

extern struct layer_data data;
extern struct net_case net_case;
extern struct net_data net_data;
extern struct budget budget;          // of every context's host
extern float x[N_TOKENS * WIDTH + 1]; // x + 1: another one

struct measured {
    float y[N_TOKENS * WIDTH], y_of_next[N_TOKENS * WIDTH]; // of x and of x + 1
    double runs[N_RUNS], pass[2];
    vkmoe_dispatch_time times[MAX_DISPATCHES];
    uint32_t n_times;
    vkmoe_limits limits;
};
extern struct measured want; // outputs and the number of dispatches, by the plain calls
extern struct measured got;
size_t y_size(void); // bytes

int measured_set_up(void **state);
int measured_tear_down(void **state);

// Where addressing is by descriptors, which makes more calls.
vkmoe_context_desc context_desc(vkmoe_host *host);
vkmoe_io io_of(float *y);
enum vkmoe_status time_runs(vkmoe_bind *bind, float *y, uint32_t n, double *seconds);
// For x + 1, so that a result of time_runs is not taken for one of this.
enum vkmoe_status time_dispatches(vkmoe_bind *bind, float *y, vkmoe_dispatch_time *times,
                                  uint32_t *n);
enum vkmoe_status make_probe(vkmoe_context *context, vkmoe_probe **out);
enum vkmoe_status make_net(vkmoe_context *context, vkmoe_net **out);

// A context with a layer, of which there is one at a time; its pipelines stay till it is closed.
extern struct stack session;
enum vkmoe_status open_session(void);
void close_session(void);

enum { LAYER = 1, LIMITS = 2, NET = 4 };                   // bits of `what`
enum vkmoe_status measure(int what, struct measured *out); // in the session
enum vkmoe_status attempt(int what, struct measured *out); // in a session of its own
void check_layer(const struct measured *m);

#endif

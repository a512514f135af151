// SPDX-License-Identifier: MIT
#include "measured.h"

struct layer_data data;
struct net_case net_case;
struct net_data net_data;
struct budget budget;
float x[N_TOKENS * WIDTH + 1];
struct measured want, got;

size_t y_size(void)
{
    return (size_t) N_TOKENS * data.layer.d_out * sizeof(float);
}

// ---- the pieces --------------------------------------------------------------------------------

vkmoe_io io_of(float *y)
{
    vkmoe_io io = vkmoe_io_init();
    io.x = x;
    io.y = y;
    return io;
}

enum vkmoe_status time_runs(vkmoe_bind *bind, float *y, uint32_t n, double *seconds)
{
    vkmoe_io io = io_of(y);
    vkmoe_time_desc desc = vkmoe_time_desc_init();
    desc.binds = &bind;
    desc.ios = &io;
    desc.n_binds = 1;
    desc.n_tokens = N_TOKENS;
    return vkmoe_time_runs(&desc, n, seconds);
}

enum vkmoe_status time_dispatches(vkmoe_bind *bind, float *y, vkmoe_dispatch_time *times,
                                  uint32_t *n)
{
    vkmoe_io io = io_of(y);
    vkmoe_time_desc desc = vkmoe_time_desc_init();
    io.x = x + 1; // so that a result of time_runs is not taken for one of this
    desc.binds = &bind;
    desc.ios = &io;
    desc.n_binds = 1;
    desc.n_tokens = N_TOKENS;
    return vkmoe_time_dispatches(&desc, times, n);
}

enum vkmoe_status make_probe(vkmoe_context *context, vkmoe_probe **out)
{
    vkmoe_probe_desc desc = vkmoe_probe_desc_init();
    desc.read_size = 1 << 20;
    return vkmoe_probe_create(context, &desc, out);
}

enum vkmoe_status make_net(vkmoe_context *context, vkmoe_net **out)
{
    enum vkmoe_status status = vkmoe_net_create(context, &net_case.desc, out);
    return status == VKMOE_OK ? vkmoe_net_init(*out, 3) : status;
}

vkmoe_context_desc context_desc(vkmoe_host *host)
{
    vkmoe_context_desc desc = vkmoe_context_desc_init();
    *host = vkmoe_host_init();
    budget_host(host, &budget);
    desc.host = host;
    desc.device = "vulkan";
    desc.cache_dir = "";
    desc.addressing = VKMOE_ADDRESSING_DESCRIPTORS; // makes more calls
    return desc;
}

// ---- everything once ---------------------------------------------------------------------------

static enum vkmoe_status measure_layer(vkmoe_bind *bind, struct measured *out)
{
    out->n_times = MAX_DISPATCHES;
    enum vkmoe_status status = time_runs(bind, out->y, N_RUNS, out->runs);
    return status == VKMOE_OK ? time_dispatches(bind, out->y_of_next, out->times, &out->n_times)
                              : status;
}

static enum vkmoe_status measure_limits(vkmoe_context *context, struct measured *out)
{
    vkmoe_probe *probe = NULL;
    enum vkmoe_status status = make_probe(context, &probe);
    if (status == VKMOE_OK)
        status = vkmoe_probe_run(probe, VKMOE_PROBE_ALL, &out->limits);
    vkmoe_probe_destroy(probe);
    return status;
}

static enum vkmoe_status measure_net(vkmoe_context *context, struct measured *out)
{
    vkmoe_net *net = NULL;
    static vkmoe_dispatch_time times[MAX_DISPATCHES];
    uint32_t n = MAX_DISPATCHES;
    enum vkmoe_status status = make_net(context, &net);
    if (status == VKMOE_OK)
        status =
            vkmoe_net_time_runs(net, &net_data.batch, VKMOE_NET_PASS_TRAIN, 0.01f, 2, out->pass);
    if (status == VKMOE_OK)
        status =
            vkmoe_net_time_dispatches(net, &net_data.batch, VKMOE_NET_PASS_FORWARD, 0, times, &n);
    vkmoe_net_destroy(net);
    return status;
}

struct stack session;
static vkmoe_host session_host;

enum vkmoe_status open_session(void)
{
    vkmoe_context_desc desc = context_desc(&session_host);
    return stack_create(&session, &desc, &data, N_TOKENS, false);
}

void close_session(void)
{
    stack_destroy(&session);
    session = (struct stack){0};
    assert_int_equal(budget.live, 0);
}

enum vkmoe_status measure(int what, struct measured *out)
{
    enum vkmoe_status status = VKMOE_OK;
    memset(out, 0xff, sizeof *out);
    if (what & LAYER)
        status = measure_layer(session.bind, out);
    if (status == VKMOE_OK && (what & LIMITS))
        status = measure_limits(session.context, out);
    if (status == VKMOE_OK && (what & NET))
        status = measure_net(session.context, out);
    return status;
}

enum vkmoe_status attempt(int what, struct measured *out)
{
    vkmoe_error_set("");
    enum vkmoe_status status = open_session();
    if (status == VKMOE_OK)
        status = measure(what, out);
    assert_true(status == VKMOE_OK || strlen(vkmoe_error_text()) > 0);
    close_session();
    return status;
}

void check_layer(const struct measured *m)
{
    assert_memory_equal(m->y, want.y, y_size());
    assert_memory_equal(m->y_of_next, want.y_of_next, y_size());
    assert_int_equal(m->n_times, want.n_times);
    for (int i = 0; i < N_RUNS; i++)
        assert_true(m->runs[i] > 0);
}
int measured_set_up(void **state)
{
    (void) state;
    vkmoe_layer_desc layer = full_layer();
    struct stack stack;
    vkmoe_host host;
    vkmoe_context_desc desc = context_desc(&host);
    budget = (struct budget){.fail_at = -1};
    layer_data_init(&data, &layer, 9);
    assert_true(layer.d_model <= WIDTH && data.layer.d_out <= WIDTH);
    fill_random(x, N_TOKENS * WIDTH + 1, 5);
    net_case_init(&net_case, net_case_find("gated"));
    net_data_init(&net_data, &net_case, 4);
    check_ok(stack_create(&stack, &desc, &data, N_TOKENS, false));
    vkmoe_io io = io_of(want.y);
    check_ok(vkmoe_run(stack.bind, N_TOKENS, &io));
    io.x = x + 1;
    io.y = want.y_of_next;
    check_ok(vkmoe_run(stack.bind, N_TOKENS, &io));
    assert_memory_not_equal(want.y, want.y_of_next, y_size());
    check_ok(vkmoe_vk_dispatch_count(stack.bind, N_TOKENS, &want.n_times));
    stack_destroy(&stack);
    return 0;
}

int measured_tear_down(void **state)
{
    (void) state;
    close_session();
    layer_data_finish(&data);
    return 0;
}

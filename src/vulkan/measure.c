// SPDX-License-Identifier: MIT
// Runs of layers by the device's clock: back to back, many in a submission, or dispatch by
// dispatch. Copies of x and of results are outside the stamps.
#include "vulkan/measure.h"

#include "base/bits.h"
#include "vulkan/run.h"
#include "vulkan/timer.h"

void moe_vk_program_kernels(const struct moe_program *program, vkmoe_plan_kernels *out)
{
    const struct moe_vk_program *p = (const struct moe_vk_program *) program;
    const struct moe_layer *layer = &program->graph.layer;
    const struct moe_vk_variant *in =
        moe_vk_matmul_variant(p->variant, layer->desc.in_type,
                              layer->desc.d_latent > 0 ? VKMOE_F32 : program->x_type);
    const struct moe_vk_variant *down =
        moe_vk_matmul_variant(p->variant, layer->desc.out_type, VKMOE_F32);
    bool grouped = p->sequences[MOE_VK_GROUPED].n > 0; // else the kernels of all variants
    struct moe_vk_block block;
    moe_vk_block(layer, 0, &block); // the program is there, so it does not fail
    *out = (vkmoe_plan_kernels){.name = p->variant->name,
                                .arithmetic = !grouped          ? VKMOE_ARITHMETIC_F32
                                              : in->id < down->id ? in->arithmetic
                                                                  : down->arithmetic,
                                .weights_size = block.size};
}

static double budget_ns(const struct moe_vk_bound *b)
{
    return ((const struct moe_vk_program *) b->base.program)->budget_ms * 1e6;
}

// ---- runs back to back -------------------------------------------------------------------------

// A bind whose x is on the device.
struct timed {
    struct moe_vk_bound *b;
    struct moe_vk_host_block block;
    uint32_t first, end; // dispatches
    double work;         // of them all
};

// Runs on their way: a submission in the making, and where its times go.
struct stream {
    struct moe_vk *vk;
    struct moe_vk_command *command;
    struct moe_vk_timer timer;
    double budget_ns, ns_per_work; // of a submission; the slowest bind's, then as measured
    double *seconds;               // by run

    bool recording;
    double work;
    uint32_t runs[MOE_VK_STAMPS]; // whose dispatches are before a stamp
};

static enum vkmoe_status submit(struct stream *s)
{
    enum vkmoe_status status = VKMOE_OK;
    if (!s->recording)
        return VKMOE_OK;
    TRY(moe_vk_command_run(s->vk, s->command));
    TRY(moe_vk_timer_read(s->vk, &s->timer));
    for (uint32_t i = 1; i < s->timer.n; i++)
        s->seconds[s->runs[i]] += moe_vk_timer_seconds(&s->timer, i - 1, i);
    moe_vk_learn(&s->ns_per_work, s->budget_ns, s->work,
                 moe_vk_timer_seconds(&s->timer, 0, s->timer.n - 1) * 1e9);
    s->recording = false;
    s->work = 0;

fail:
    return status;
}

static enum vkmoe_status begin(struct stream *s)
{
    enum vkmoe_status status = VKMOE_OK;
    if (s->recording)
        return VKMOE_OK;
    TRY(moe_vk_command_begin(s->vk, s->command));
    moe_vk_timer_begin(s->vk, &s->timer, s->command->buffer);
    s->recording = true;

fail:
    return status;
}

// A run that does not fit into what is left of a submission gets a new one. If it does not fit into
// that either, it ends in another, and its time is the sum of its slices.
static enum vkmoe_status add_run(struct stream *s, const struct timed *t, uint32_t run)
{
    enum vkmoe_status status = VKMOE_OK;
    bool fits = (s->work + t->work) * s->ns_per_work <= s->budget_ns;
    if (!fits || moe_vk_timer_full(&s->timer))
        TRY(submit(s));
    for (uint32_t first = t->first, n; first < t->end; first += n) {
        double work = t->work;
        n = t->end - first;
        if (!s->recording)
            n = moe_vk_next_slice(t->b, &t->block, first, s->ns_per_work, &work);
        TRY(begin(s));
        moe_vk_record_block(t->b, s->command->buffer, &t->block.run, first, n);
        s->runs[s->timer.n] = run;
        moe_vk_timer_stamp(s->vk, &s->timer, s->command->buffer);
        s->work += work;
        if (first + n < t->end)
            TRY(submit(s));
    }

fail:
    return status;
}

static double work_of(const struct timed *t)
{
    const struct moe_vk_sequence *sequence = moe_vk_sequence_of(t->b, t->block.run.regime);
    double work = 0;
    for (uint32_t i = t->first; i < t->end; i++)
        work += moe_vk_work(&sequence->dispatches[i], t->block.run.n_tokens);
    return work;
}

static enum vkmoe_status put_x(struct moe_vk *vk, const struct timed *t, const vkmoe_io *io)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk_bound *b = t->b;
    TRY(moe_vk_write_inputs(b, &t->block, io));
    TRY(moe_vk_command_begin(vk, &b->command));
    moe_vk_record_inputs(vk, b, &t->block);
    TRY(moe_vk_command_run(vk, &b->command));

fail:
    return status;
}

static enum vkmoe_status get_results(struct moe_vk *vk, const struct timed *t, const vkmoe_io *io)
{
    enum vkmoe_status status = VKMOE_OK;
    TRY(moe_vk_command_begin(vk, &t->b->command));
    moe_vk_record_readback(vk, t->b, &t->block);
    TRY(moe_vk_command_run(vk, &t->b->command));
    TRY(moe_vk_read_results(t->b, &t->block, io));

fail:
    return status;
}

static enum vkmoe_status prepare(struct timed *t, struct moe_bound *bound, uint32_t i,
                                 uint32_t n_tokens)
{
    enum moe_vk_regime regime = moe_vk_choose_regime(n_tokens);
    t->b = (struct moe_vk_bound *) bound;
    uint32_t most = t->b->blocks[regime].block_tokens;
    if (n_tokens > most)
        return moe_fail(VKMOE_E_UNSUPPORTED,
                        "%u tokens take more than one block of bind %u, which has %u tokens",
                        n_tokens, i, most);
    t->block.run =
        (struct moe_vk_block_run){.regime = regime, .n_tokens = n_tokens, .block_first = MOE_NONE};
    t->first = moe_vk_first_dispatch(t->b);
    t->end = moe_vk_sequence_of(t->b, regime)->n;
    t->work = work_of(t);
    return VKMOE_OK;
}

static enum vkmoe_status run_all(struct stream *s, const struct timed *timed, uint32_t n,
                                 uint32_t n_runs)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < n; i++) {
        const struct moe_vk_bound *b = timed[i].b;
        s->budget_ns = i == 0 || budget_ns(b) < s->budget_ns ? budget_ns(b) : s->budget_ns;
        s->ns_per_work = b->ns_per_work > s->ns_per_work ? b->ns_per_work : s->ns_per_work;
    }
    for (uint32_t run = 0; run < n_runs; run++) {
        s->seconds[run] = 0;
        TRY(add_run(s, &timed[run % n], run));
    }
    TRY(submit(s));
    for (uint32_t i = 0; i < n; i++)
        timed[i].b->ns_per_work = s->ns_per_work;

fail:
    return status;
}

enum vkmoe_status moe_vk_time_runs(struct moe_bound *const *bounds, const vkmoe_io *ios,
                                   uint32_t n_bounds, uint32_t n_tokens, uint32_t n_runs,
                                   double *seconds)
{
    enum vkmoe_status status = VKMOE_OK;
    uint32_t n = (uint32_t) moe_min(n_bounds, n_runs); // the others do not run
    struct moe_vk *vk = moe_vk_of(bounds[0]);
    struct stream stream = {.vk = vk, .seconds = seconds};
    struct timed *timed = NULL;
    TRY(moe_try_alloc(vk->base.host, n * sizeof *timed, "timed runs", &timed));
    TRY(moe_vk_timer_create(vk, &stream.timer));
    for (uint32_t i = 0; i < n; i++)
        TRY(prepare(&timed[i], bounds[i], i, n_tokens));
    for (uint32_t i = 0; i < n; i++) {
        moe_vk_plan_results(timed[i].b, &timed[i].block, &ios[i]);
        TRY(put_x(vk, &timed[i], &ios[i]));
    }
    stream.command = &timed[0].b->command;
    TRY(run_all(&stream, timed, n, n_runs));
    for (uint32_t i = 0; i < n; i++)
        TRY(get_results(vk, &timed[i], &ios[i]));

fail:
    moe_vk_timer_destroy(vk, &stream.timer);
    moe_free(vk->base.host, timed);
    return status;
}

// ---- dispatch by dispatch ----------------------------------------------------------------------

struct dispatch_times {
    struct moe_vk_timer timer;
    vkmoe_dispatch_time *times;
    uint32_t n, room;
};

// Dispatches [first, first + n) of a block: each begins with a barrier and ends with a stamp.
static void record_timed(const struct moe_vk_bound *b, const struct moe_vk_host_block *block,
                         uint32_t first, uint32_t n, struct dispatch_times *out)
{
    const struct moe_vk *vk = moe_vk_of(&b->base);
    moe_vk_timer_begin(vk, &out->timer, b->command.buffer);
    for (uint32_t i = first; i < first + n; i++) {
        moe_vk_record_block(b, b->command.buffer, &block->run, i, 1);
        moe_vk_timer_stamp(vk, &out->timer, b->command.buffer);
    }
}

static void add_times(const struct moe_vk_bound *b, enum moe_vk_regime regime, uint32_t first,
                      uint32_t n, struct dispatch_times *out)
{
    const struct moe_vk_sequence *sequence = moe_vk_sequence_of(b, regime);
    for (uint32_t i = 0; i < n && out->n < out->room; i++)
        out->times[out->n++] = (vkmoe_dispatch_time){sequence->dispatches[first + i].label,
                                                     moe_vk_timer_seconds(&out->timer, i, i + 1)};
}

static enum vkmoe_status time_block(struct moe_vk *vk, struct moe_vk_bound *b,
                                    const struct moe_vk_host_block *block,
                                    struct dispatch_times *out)
{
    enum vkmoe_status status = VKMOE_OK;
    uint32_t begin = moe_vk_first_dispatch(b);
    uint32_t end = moe_vk_sequence_of(b, block->run.regime)->n;
    for (uint32_t first = begin, n; first < end; first += n) {
        double work;
        n = moe_vk_next_slice(b, block, first, b->ns_per_work, &work);
        n = (uint32_t) moe_min(n, MOE_VK_STAMPS - 1);
        TRY(moe_vk_command_begin(vk, &b->command));
        if (first == begin)
            moe_vk_record_inputs(vk, b, block);
        record_timed(b, block, first, n, out);
        if (first + n == end)
            moe_vk_record_readback(vk, b, block);
        TRY(moe_vk_command_run(vk, &b->command));
        TRY(moe_vk_timer_read(vk, &out->timer));
        add_times(b, block->run.regime, first, n, out);
    }

fail:
    return status;
}

enum vkmoe_status moe_vk_time_dispatches(struct moe_bound *bound, uint32_t n_tokens,
                                         const vkmoe_io *io, vkmoe_dispatch_time *times,
                                         uint32_t *n)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk *vk = moe_vk_of(bound);
    struct moe_vk_bound *b = (struct moe_vk_bound *) bound;
    struct moe_vk_host_block block = {
        .run = {.regime = moe_vk_choose_regime(n_tokens), .block_first = MOE_NONE}};
    struct dispatch_times out = {.times = times, .room = *n};
    *n = moe_vk_dispatch_count(bound, n_tokens);
    if (!times)
        return VKMOE_OK;
    TRY(moe_vk_timer_create(vk, &out.timer));
    uint32_t block_tokens = b->blocks[block.run.regime].block_tokens;
    for (; block.first < n_tokens; block.first += block.run.n_tokens) {
        block.run.n_tokens = (uint32_t) moe_min(block_tokens, n_tokens - block.first);
        moe_vk_plan_results(b, &block, io);
        TRY(moe_vk_write_inputs(b, &block, io));
        TRY(time_block(vk, b, &block, &out));
        TRY(moe_vk_read_results(b, &block, io));
    }

fail:
    moe_vk_timer_destroy(vk, &out.timer);
    return status;
}

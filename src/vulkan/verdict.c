// SPDX-License-Identifier: MIT
// What is known of the kernel variants on this device and driver: read from the cache, found out by
// the self-test, written back. Before a self-test begins the cache says so: if the process does not
// survive it, a later one finds the mark, tests once more, and if that is not survived either,
// everybody does without the variant. The same goes for pipelines of plans: the self-test makes but
// a few of those that there can be. The record keeps which ones have been made well, so that there
// are no marks once a program has run.
//
// A mark may also be that of another process that is testing right now. A young one decides nothing
// but that this context does without the variant. The cache is read right before a mark is written,
// and a write changes one variant's entry, so a young mark is left alone but for the moment between
// reading and writing, where both processes test and the last verdict stays.
#include "vulkan/plan.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"

enum { YOUNG = 600 }; // seconds; compilers of small devices are slow

// Of this struct moe_vk_record: "verdict" had no times, and "verdic2" no pipelines.
static const char magic[8] = "verdic3";

static bool is_making(uint32_t state)
{
    return state == MOE_VK_MAKING || state == MOE_VK_MAKING_AGAIN;
}

static bool is_mark(uint32_t state)
{
    return state == MOE_VK_TRYING || state == MOE_VK_TRYING_AGAIN || is_making(state);
}

static bool is_right(uint32_t state)
{
    return state == MOE_VK_GOOD || state == MOE_VK_NOT_FASTER;
}

static uint64_t now(void)
{
    return (uint64_t) time(NULL);
}

// Of all kernels that variants choose between: with other kernels, other verdicts.
static uint64_t shaders_checksum(void)
{
    enum { N_KERNELS = 7 };
    uint64_t sums[N_KERNELS * MOE_VK_N_VARIANTS] = {0};
    for (int i = 0; i < MOE_VK_N_VARIANTS; i++) {
        const struct moe_vk_variant *variant = &moe_vk_variants[i];
        enum moe_spv_id kernels[N_KERNELS] = {
            variant->gemm, variant->gemm_bda, variant->small, variant->small_bda,
            variant->quantises ? MOE_SPV_QUANTISE_BDA : MOE_N_SPV,
            variant->nets ? variant->dw : MOE_N_SPV, variant->nets ? variant->dw_bda : MOE_N_SPV};
        for (int k = 0; k < N_KERNELS; k++)
            if (kernels[k] < MOE_N_SPV)
                sums[N_KERNELS * i + k] = moe_vk_checksum(moe_spv_table[kernels[k]].words,
                                                          moe_spv_table[kernels[k]].size);
    }
    return moe_vk_checksum(sums, sizeof sums);
}

// The record of this device, driver and build, with no verdict yet, and its name.
static void empty_record(const struct moe_vk *vk, struct moe_vk_record *out, char key[96])
{
    VkPhysicalDeviceIDProperties id = {.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES};
    VkPhysicalDeviceProperties2 properties = {
        .sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2, .pNext = &id};
    vk->fn.vkGetPhysicalDeviceProperties2(vk->physical, &properties);
    memset(out, 0, sizeof *out);
    memcpy(out->magic, magic, sizeof magic);
    memcpy(out->device, id.deviceUUID, sizeof out->device);
    memcpy(out->driver, id.driverUUID, sizeof out->driver);
    out->driver_version = vk->caps.driver_version;
    out->n_variants = MOE_VK_N_VARIANTS;
    out->shaders = shaders_checksum();
    snprintf(key, 96, "verdicts-%s-%08x-%08x", vk->base.info.uuid, vk->caps.driver_version,
             (uint32_t) (out->shaders ^ out->shaders >> 32));
}

// Is what was read ours, and sound? All but the verdicts must be what we would write.
static bool record_fits(const struct moe_vk_record *want, const struct moe_vk_record *read)
{
    if (memcmp(want, read, offsetof(struct moe_vk_record, variants)) != 0)
        return false;
    for (int i = 0; i < MOE_VK_N_VARIANTS; i++) {
        const struct moe_vk_verdict *v = &read->variants[i];
        if (v->state >= MOE_VK_N_STATES || v->cause >= MOE_VK_N_CAUSES || !(v->seconds >= 0) ||
            !(v->base_seconds >= 0)) // NaN neither
            return false;
    }
    return true;
}

// What the cache says now; nothing of any variant where it has no record.
static void read_record(const struct moe_vk *vk, struct moe_vk_record *out, char key[96])
{
    struct moe_vk_record read;
    struct moe_vk_entry entry;
    empty_record(vk, out, key);
    moe_vk_entry_read(vk, key, &entry);
    if (entry.data && entry.size == sizeof read) {
        memcpy(&read, entry.data, sizeof read);
        if (record_fits(out, &read))
            *out = read;
    }
    moe_vk_entry_finish(vk, &entry);
}

// Writes what is known of one variant; of the others stays what is there by now.
static void save(struct moe_vk *vk, enum moe_vk_variant_id id)
{
    char key[96];
    struct moe_vk_record record;
    if (!moe_vk_store_exists(vk))
        return;
    read_record(vk, &record, key);
    record.variants[id] = vk->verdicts[id];
    if (vk->verdicts[id].cause == MOE_VK_UNTESTABLE) // true for this context alone
        record.variants[id] = (struct moe_vk_verdict){0};
    // What cannot be replaced has to go: it may be the mark of a self-test that is over.
    if (!moe_vk_entry_write(vk, key, &record, sizeof record))
        moe_vk_entry_remove(vk, key);
}

static void set(struct moe_vk *vk, enum moe_vk_variant_id id, enum moe_vk_state state,
                enum moe_vk_cause cause)
{
    vk->verdicts[id] = (struct moe_vk_verdict){.since = now(), .state = state, .cause = cause};
}

static const char *const cause_texts[MOE_VK_N_CAUSES] = {
    [MOE_VK_NO_CAUSE] = "it is good",
    [MOE_VK_WRONG] = "its self-test gave wrong results",
    [MOE_VK_NO_PIPELINE] = "the driver did not make its pipeline",
    [MOE_VK_FAILED] = "the device failed in its self-test",
    [MOE_VK_CRASHED] = "an earlier process ended in its self-test, or where it was compiled",
    [MOE_VK_BUSY] = "its self-test or compilation has begun elsewhere and not ended yet",
    [MOE_VK_LISTED] = "this driver is known not to compute it",
    [MOE_VK_UNTESTABLE] = "its self-test could not be made",
    [MOE_VK_SLOWER] = "it is not 3 % faster than what is used without it",
};

static void log_bad(struct moe_vk *vk, enum moe_vk_variant_id id, const char *detail)
{
    moe_log(vk->base.host, VKMOE_LOG_WARN, "variant '%s' is not used on %s: %s%s%s",
            moe_vk_variants[id].name, vk->base.info.name, cause_texts[vk->verdicts[id].cause],
            detail ? ": " : "", detail ? detail : "");
}

static void bad(struct moe_vk *vk, enum moe_vk_variant_id id, enum moe_vk_cause cause,
                const char *detail)
{
    set(vk, id, MOE_VK_BAD, cause);
    log_bad(vk, id, detail);
}

// What a mark of making was written over.
static void restore(struct moe_vk_verdict *verdict)
{
    verdict->state = verdict->cause == MOE_VK_SLOWER ? MOE_VK_NOT_FASTER : MOE_VK_GOOD;
}

// A mark of what has begun: of a process that is at work, or of one that is gone. After the first
// of those a context that can test tries again, as its user may just have killed it.
static void judge_mark(struct moe_vk *vk, enum moe_vk_variant_id id)
{
    struct moe_vk_verdict mark = vk->verdicts[id];
    uint64_t today = now(), age = today > mark.since ? today - mark.since : mark.since - today;
    bool first = mark.state == MOE_VK_TRYING || mark.state == MOE_VK_MAKING;
    if (age >= YOUNG && first && vk->queue) {
        if (is_making(mark.state)) {
            restore(&vk->verdicts[id]);
            vk->suspects |= MOE_VK_BIT(id);
        }
        return;
    }
    bad(vk, id, age < YOUNG ? MOE_VK_BUSY : MOE_VK_CRASHED, NULL);
    if (age >= YOUNG && !first && vk->queue)
        save(vk, id);
}

// As long as nothing is decided the cache is asked again: another process may know by now.
static void read_verdict(struct moe_vk *vk, enum moe_vk_variant_id id)
{
    char key[96];
    struct moe_vk_record record;
    if (vk->verdicts[id].state != MOE_VK_UNTESTED)
        return;
    read_record(vk, &record, key);
    vk->verdicts[id] = record.variants[id];
    if (is_mark(vk->verdicts[id].state))
        judge_mark(vk, id);
}

static enum vkmoe_status test(struct moe_vk *vk, const struct moe_vk_variant *variant)
{
    enum moe_vk_cause cause;
    bool again = vk->verdicts[variant->id].state == MOE_VK_TRYING;
    set(vk, variant->id, again ? MOE_VK_TRYING_AGAIN : MOE_VK_TRYING, MOE_VK_NO_CAUSE);
    save(vk, variant->id);
    moe_trace(vk->base.host, "vkmoe self-test", true);
    enum vkmoe_status status = moe_vk_self_test(vk, variant, &cause);
    moe_trace(vk->base.host, "vkmoe self-test", false);
    if (status != VKMOE_OK)
        bad(vk, variant->id, MOE_VK_UNTESTABLE, vkmoe_error_text());
    else if (cause != MOE_VK_NO_CAUSE)
        bad(vk, variant->id, cause, cause == MOE_VK_WRONG ? NULL : vkmoe_error_text());
    else
        set(vk, variant->id, MOE_VK_GOOD, MOE_VK_NO_CAUSE);
    save(vk, variant->id);
    if (!atomic_load(&vk->lost))
        return VKMOE_OK;
    return moe_fail(VKMOE_E_DEVICE_LOST, "%s was lost in the self-test of variant '%s'",
                    vk->base.info.name, variant->name);
}

// What the cache and the table of bad drivers say. Who cannot test trusts a test of another time
// more than the table.
static void look_up(struct moe_vk *vk, enum moe_vk_variant_id id)
{
    const char *link = moe_vk_known_bad(&vk->caps, id);
    read_verdict(vk, id);
    bool right = is_right(vk->verdicts[id].state);
    if (link && (right ? vk->queue != NULL : vk->verdicts[id].state != MOE_VK_BAD))
        bad(vk, id, MOE_VK_LISTED, link);
}

// What is not decided holds for one plan, and the next one asks again.
static void forget_undecided(struct moe_vk_verdict *verdict)
{
    if (verdict->cause == MOE_VK_UNTESTABLE || verdict->cause == MOE_VK_BUSY)
        verdict->state = MOE_VK_UNTESTED;
}

enum vkmoe_status moe_vk_judge(struct moe_vk *vk, const struct moe_vk_variant *variant, bool *good)
{
    enum vkmoe_status status = VKMOE_OK;
    struct moe_vk_verdict *verdict = &vk->verdicts[variant->id];
    *good = true;
    if (variant->id == MOE_VK_A0)
        return VKMOE_OK;
    pthread_mutex_lock(&vk->verdicts_lock);
    look_up(vk, variant->id);
    if (!is_right(verdict->state) && verdict->state != MOE_VK_BAD && vk->queue)
        status = test(vk, variant);
    *good = verdict->state != MOE_VK_BAD;
    forget_undecided(verdict);
    pthread_mutex_unlock(&vk->verdicts_lock);
    return status;
}

// ---- pipelines of plans -------------------------------------------------------------------------

void moe_vk_own_add(struct moe_vk_own *own, enum moe_spv_id spv,
                    const uint32_t spec[MOE_VK_MAX_SPEC])
{
    uint64_t sum = moe_vk_checksum(spec, MOE_VK_MAX_SPEC * sizeof *spec) ^ spv;
    uint32_t pipeline = (uint32_t) (sum ^ sum >> 32) | 1;
    if (!moe_vk_is_own(own->variant, spv) || own->n == MOE_COUNT(own->pipelines))
        return;
    for (uint32_t i = 0; i < own->n; i++)
        if (own->pipelines[i] == pipeline)
            return;
    own->pipelines[own->n++] = pipeline;
}

static bool is_made(const struct moe_vk_record *record, uint32_t pipeline)
{
    for (int i = 0; i < MOE_VK_N_MADE; i++)
        if (record->made[i] == pipeline)
            return true;
    return false;
}

static bool all_made(const struct moe_vk_record *record, const struct moe_vk_own *own)
{
    for (uint32_t i = 0; i < own->n; i++)
        if (!is_made(record, own->pipelines[i]))
            return false;
    return true;
}

static void remember(struct moe_vk_record *record, uint32_t pipeline)
{
    if (is_made(record, pipeline))
        return;
    memmove(record->made + 1, record->made, sizeof record->made - sizeof *record->made);
    record->made[0] = pipeline;
}

// As save does.
static void write_record(struct moe_vk *vk, const char *key, const struct moe_vk_record *record)
{
    if (!moe_vk_entry_write(vk, key, record, sizeof *record))
        moe_vk_entry_remove(vk, key);
}

bool moe_vk_begin_making(struct moe_vk *vk, const struct moe_vk_own *own)
{
    char key[96];
    struct moe_vk_record record;
    enum moe_vk_variant_id id = own->variant->id;
    if (id == MOE_VK_A0 || !vk->queue || !moe_vk_store_exists(vk))
        return false;
    pthread_mutex_lock(&vk->verdicts_lock);
    read_record(vk, &record, key);
    bool unknown = !all_made(&record, own);
    if (unknown) {
        record.variants[id] = vk->verdicts[id];
        record.variants[id].since = now();
        record.variants[id].state =
            vk->suspects & MOE_VK_BIT(id) ? MOE_VK_MAKING_AGAIN : MOE_VK_MAKING;
        write_record(vk, key, &record);
    }
    pthread_mutex_unlock(&vk->verdicts_lock);
    return unknown;
}

void moe_vk_end_making(struct moe_vk *vk, const struct moe_vk_own *own, bool made)
{
    char key[96];
    struct moe_vk_record record;
    enum moe_vk_variant_id id = own->variant->id;
    pthread_mutex_lock(&vk->verdicts_lock);
    read_record(vk, &record, key);
    record.variants[id] = vk->verdicts[id];
    if (made) {
        for (uint32_t i = 0; i < own->n; i++)
            remember(&record, own->pipelines[i]);
        vk->suspects &= ~MOE_VK_BIT(id);
    }
    write_record(vk, key, &record);
    pthread_mutex_unlock(&vk->verdicts_lock);
}

// ---- what is known ------------------------------------------------------------------------------

struct moe_vk_verdict moe_vk_known(struct moe_vk *vk, enum moe_vk_variant_id id)
{
    pthread_mutex_lock(&vk->verdicts_lock);
    struct moe_vk_verdict verdict = vk->verdicts[id];
    pthread_mutex_unlock(&vk->verdicts_lock);
    return verdict;
}

struct moe_vk_verdict moe_vk_recall(struct moe_vk *vk, enum moe_vk_variant_id id)
{
    pthread_mutex_lock(&vk->verdicts_lock);
    look_up(vk, id);
    const struct moe_vk_verdict verdict = vk->verdicts[id];
    forget_undecided(&vk->verdicts[id]);
    pthread_mutex_unlock(&vk->verdicts_lock);
    return verdict;
}

bool moe_vk_begin_probe(struct moe_vk *vk, enum moe_vk_variant_id id)
{
    pthread_mutex_lock(&vk->verdicts_lock);
    const struct moe_vk_verdict *verdict = &vk->verdicts[id];
    bool due = vk->queue && verdict->state == MOE_VK_GOOD && !(verdict->seconds > 0) &&
               !(vk->probed & MOE_VK_BIT(id));
    vk->probed |= due ? MOE_VK_BIT(id) : 0;
    pthread_mutex_unlock(&vk->verdicts_lock);
    return due;
}

void moe_vk_set_times(struct moe_vk *vk, const struct moe_vk_variant *variant, double seconds,
                      double base_seconds)
{
    struct moe_vk_verdict *verdict = &vk->verdicts[variant->id];
    bool faster = seconds <= base_seconds * (1 - MOE_VK_GAIN);
    pthread_mutex_lock(&vk->verdicts_lock);
    if (is_right(verdict->state)) { // still: a plan may have condemned it meanwhile
        verdict->state = faster ? MOE_VK_GOOD : MOE_VK_NOT_FASTER;
        verdict->cause = faster ? MOE_VK_NO_CAUSE : MOE_VK_SLOWER;
        verdict->seconds = seconds;
        verdict->base_seconds = base_seconds;
        save(vk, variant->id);
    }
    pthread_mutex_unlock(&vk->verdicts_lock);
}

void moe_vk_forget(struct moe_vk *vk)
{
    char key[96];
    struct moe_vk_record record;
    pthread_mutex_lock(&vk->verdicts_lock);
    memset(vk->verdicts, 0, sizeof vk->verdicts);
    empty_record(vk, &record, key);
    if (moe_vk_store_exists(vk) && !moe_vk_entry_write(vk, key, &record, sizeof record))
        moe_vk_entry_remove(vk, key);
    pthread_mutex_unlock(&vk->verdicts_lock);
}

void moe_vk_condemn(struct moe_vk *vk, const struct moe_vk_variant *variant,
                    enum moe_vk_cause cause)
{
    pthread_mutex_lock(&vk->verdicts_lock);
    bad(vk, variant->id, cause, vkmoe_error_text());
    save(vk, variant->id);
    pthread_mutex_unlock(&vk->verdicts_lock);
}

const char *moe_vk_verdict_text(struct moe_vk *vk, enum moe_vk_variant_id variant)
{
    pthread_mutex_lock(&vk->verdicts_lock);
    const char *text = cause_texts[vk->verdicts[variant].cause];
    pthread_mutex_unlock(&vk->verdicts_lock);
    return text;
}

// SPDX-License-Identifier: MIT
// The table of bad drivers, and the choice of a plan's variant.
#include "vulkan/choose.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/bits.h"
#include "core/dtype.h"
#include "params.h"
#include "vulkan/feature_table.h"

// Drivers on which a variant is not to be tried. A row has a source.
static const struct {
    uint32_t driver;      // VkDriverId
    uint32_t first, last; // driverVersion
    enum moe_vk_variant_id variant; // and others of its kind
    const char *source;
    uint32_t subgroup; // only with subgroups of this size; 0: whatever it is
} bad_drivers[] = {
    // The GPU's firmware faults and the device restarts, although every pipeline compiles.
    {VK_DRIVER_ID_IMAGINATION_PROPRIETARY, 0, UINT32_MAX, MOE_VK_A1,
     "https://github.com/ggml-org/llama.cpp/issues/28214", 0},
    // Seen with Mesa 26.2.6, and with a kernel of one product and nothing else. Loads and stores
    // of matrices do not crash, nor do products in subgroups of 8.
    {VK_DRIVER_ID_MESA_LLVMPIPE, 0, UINT32_MAX, MOE_VK_A3,
     "vkCreateComputePipelines crashes at a product of matrices in subgroups of 16", 16},
    {VK_DRIVER_ID_MESA_LLVMPIPE, 0, UINT32_MAX, MOE_VK_A4, // seen too
     "vkCreateComputePipelines crashes at a product of matrices in subgroups of 16", 16},
    {VK_DRIVER_ID_MESA_LLVMPIPE, 0, UINT32_MAX, MOE_VK_A3I, // by inference: it has such products
     "vkCreateComputePipelines crashes at a product of matrices in subgroups of 16", 16},
};

// What drivers fail at they fail at in layers and networks.
static bool is_alike(enum moe_vk_variant_id a, enum moe_vk_variant_id b)
{
    return strcmp(moe_vk_variants[a].kind, moe_vk_variants[b].kind) == 0;
}

const char *moe_vk_known_bad(const struct moe_vk_caps *caps, enum moe_vk_variant_id variant)
{
    for (size_t i = 0; i < MOE_COUNT(bad_drivers); i++)
        if (bad_drivers[i].driver == caps->driver_id &&
            is_alike(bad_drivers[i].variant, variant) &&
            caps->driver_version >= bad_drivers[i].first &&
            caps->driver_version <= bad_drivers[i].last &&
            (bad_drivers[i].subgroup == 0 || bad_drivers[i].subgroup == caps->subgroup_size))
            return bad_drivers[i].source;
    return NULL;
}

// Drivers that show cooperative matrices on devices that may have no units for them.
static const struct {
    uint32_t driver; // VkDriverId
    const char *why;
} doubtful[] = {
    {VK_DRIVER_ID_MESA_LLVMPIPE, "this driver computes matrices on the processor"},
    {VK_DRIVER_ID_AMD_PROPRIETARY, "this driver shows matrices on every GPU"},
    // 0.0007 of the speed without: https://github.com/ggml-org/llama.cpp/issues/24404
    {VK_DRIVER_ID_INTEL_PROPRIETARY_WINDOWS, "this driver may be slow with matrices"},
};

// Drivers of GPUs whose shared memory is what their caches are: copying there is for nothing.
static const uint32_t cached_shared[] = {VK_DRIVER_ID_ARM_PROPRIETARY, VK_DRIVER_ID_MESA_PANVK};

const char *moe_vk_doubt(const struct moe_vk_variant *variant, const struct moe_vk_caps *caps)
{
    for (size_t i = 0; i < MOE_COUNT(doubtful) && variant->shape > 0; i++)
        if (doubtful[i].driver == caps->driver_id)
            return doubtful[i].why;
    if (variant->quantises && variant->shape == 0 && !caps->dot_accelerated)
        return "integerDotProduct4x8BitPackedSignedAccelerated is not set";
    for (size_t i = 0; i < MOE_COUNT(cached_shared); i++)
        if (cached_shared[i] == caps->driver_id)
            return NULL;
    return variant->id == MOE_VK_A0N || variant->id == MOE_VK_NET_A0N
               ? "this GPU may have shared memory that is worth using"
               : NULL;
}

static bool divides(uint32_t a, uint32_t b)
{
    return a > 0 && b % a == 0;
}

// Do fragments fill the kernel's tiles, and its depth? Kernels load whole words of their operands.
static bool fits(const struct moe_vk_variant *variant, const struct moe_vk_shape *shape)
{
    const uint32_t per_word = variant->quantises ? 4 : 2;
    uint32_t packed = shape->packed_is_n ? shape->n : shape->m;
    uint32_t rows = shape->packed_is_n ? shape->m : shape->n;
    return divides(packed, MOE_TILE_ROWS) && divides(rows, MOE_TILE_FULL) &&
           divides(shape->k, MOE_COOP_DEPTH) && shape->k % per_word == 0;
}

// Do units fill half the packed rows of a tile, its rows, and the depth?
static bool units_fit(const struct moe_vk_shape *units, const struct moe_vk_caps *caps)
{
    uint32_t packed = units->packed_is_n ? units->n : units->m;
    uint32_t rows = units->packed_is_n ? units->m : units->n;
    uint32_t most = moe_max(moe_max(MOE_TILE_ROWS / 2, MOE_TILE_FULL), MOE_COOP_DEPTH);
    return divides(packed, MOE_TILE_ROWS / 2) && divides(rows, MOE_TILE_FULL) &&
           divides(units->k, MOE_COOP_DEPTH) && most <= caps->max_dimension &&
           (!units->workgroup || moe_vk_has(caps, MOE_VK_WORKGROUP));
}

// The device's shapes of a variant's kind.
static const struct moe_vk_shape *shapes_of(const struct moe_vk_variant *variant,
                                            const struct moe_vk_caps *caps, uint32_t *n)
{
    *n = variant->flexible    ? caps->n_flexible
         : variant->quantises ? caps->n_byte_shapes
                              : caps->n_shapes;
    return variant->flexible    ? caps->flexible
           : variant->quantises ? caps->byte_shapes
                                : caps->shapes;
}

// The variant's own one of those that fit; NULL: there are fewer.
static const struct moe_vk_shape *fitting(const struct moe_vk_variant *variant,
                                          const struct moe_vk_caps *caps)
{
    uint32_t n, i = variant->shape;
    const struct moe_vk_shape *shapes = shapes_of(variant, caps, &n);
    for (uint32_t k = 0; k < n; k++)
        if ((variant->flexible ? units_fit(&shapes[k], caps) : fits(variant, &shapes[k])) &&
            --i == 0)
            return &shapes[k];
    return NULL;
}

struct moe_vk_shape moe_vk_variant_shape(const struct moe_vk_variant *variant,
                                         const struct moe_vk_caps *caps)
{
    const struct moe_vk_shape *shape = variant->shape > 0 ? fitting(variant, caps) : NULL;
    return shape ? *shape : (struct moe_vk_shape){0};
}

void moe_vk_matrix_spec(const struct moe_vk_variant *variant, const struct moe_vk_shape *shape,
                        uint32_t subgroups, uint32_t spec[MOE_VK_MAX_SPEC])
{
    spec[MOE_SPEC_M] = shape->m;
    spec[MOE_SPEC_N] = shape->n;
    spec[MOE_SPEC_K] = shape->k;
    spec[MOE_SPEC_PACKED_IS_N] = shape->packed_is_n;
    spec[MOE_SPEC_SUBGROUPS] = shape->workgroup ? 1 : subgroups;
    if (variant->flexible)
        spec[MOE_SPEC_SCOPE] = shape->workgroup ? VK_SCOPE_WORKGROUP_KHR : VK_SCOPE_SUBGROUP_KHR;
}

// What kernels take of a device, and how much of it there is. That push constants and storage
// buffers suffice is asked of every device, see moe_vk_check_limits.
static const struct {
    const char *name;
    size_t need, limit; // offsets of uint32_t
} variant_limits[] = {
    {"maxComputeWorkGroupInvocations", offsetof(struct moe_vk_variant, invocations),
     offsetof(struct moe_vk_caps, max_invocations)},
    {"maxComputeWorkGroupSize[0]", offsetof(struct moe_vk_variant, invocations),
     offsetof(struct moe_vk_caps, max_size_x)},
    {"maxComputeSharedMemorySize", offsetof(struct moe_vk_variant, shared),
     offsetof(struct moe_vk_caps, max_shared)},
};

static uint32_t u32_at(const void *structure, size_t offset)
{
    uint32_t value;
    memcpy(&value, (const unsigned char *) structure + offset, sizeof value);
    return value;
}

// What a variant by matrices lacks of its kernel, a shape, and subgroups.
static struct moe_vk_obstacle matrix_obstacle(const struct moe_vk_variant *variant,
                                              const struct moe_vk_caps *caps)
{
    if (variant->gemm_bda >= MOE_N_SPV)
        return (struct moe_vk_obstacle){.kind = MOE_VK_NOT_BUILT};
    const struct moe_vk_shape *shape = fitting(variant, caps);
    uint32_t n;
    shapes_of(variant, caps, &n);
    if (!shape)
        return (struct moe_vk_obstacle){
            .kind = MOE_VK_NO_SHAPE, .needs = variant->shape, .has = n};
    if (shape->workgroup && variant->shared + caps->shared_reserved > caps->max_shared)
        return (struct moe_vk_obstacle){.kind = MOE_VK_BEYOND_LIMIT,
                                        .name = "maxComputeSharedMemorySize",
                                        .needs = variant->shared + caps->shared_reserved,
                                        .has = caps->max_shared};
    if (!divides(caps->subgroup_size, MOE_LOCAL_SIZE))
        return (struct moe_vk_obstacle){.kind = MOE_VK_NO_SUBGROUPS, .has = caps->subgroup_size};
    return (struct moe_vk_obstacle){0};
}

// What a device lacks, whatever is computed.
static struct moe_vk_obstacle device_obstacle(const struct moe_vk_variant *variant,
                                              const struct moe_vk_caps *caps)
{
    if (caps->api_version < variant->api_version)
        return (struct moe_vk_obstacle){.kind = MOE_VK_NO_VERSION,
                                        .needs = VK_API_VERSION_MINOR(variant->api_version),
                                        .has = VK_API_VERSION_MINOR(caps->api_version)};
    for (int f = 0; f < MOE_VK_N_FEATURES; f++)
        if (variant->needs & ~caps->features & MOE_VK_BIT(f))
            return (struct moe_vk_obstacle){.kind = MOE_VK_NO_FEATURE,
                                            .name = moe_vk_features[f].listed.member};
    if (variant->shape > 0) {
        struct moe_vk_obstacle of_matrices = matrix_obstacle(variant, caps);
        if (of_matrices.kind != MOE_VK_NO_OBSTACLE)
            return of_matrices;
    }
    for (size_t i = 0; i < MOE_COUNT(variant_limits); i++) {
        uint32_t needs = u32_at(variant, variant_limits[i].need);
        uint32_t has = u32_at(caps, variant_limits[i].limit);
        if (needs > has)
            return (struct moe_vk_obstacle){.kind = MOE_VK_BEYOND_LIMIT,
                                            .name = variant_limits[i].name,
                                            .needs = needs,
                                            .has = has};
    }
    return (struct moe_vk_obstacle){0};
}

const char *moe_vk_tier(const struct moe_vk_caps *caps)
{
    int best = 0;
    while (best == MOE_VK_A0N || moe_vk_variants[best].nets || // which say nothing of a device
           (best < MOE_VK_A0 &&
            (device_obstacle(&moe_vk_variants[best], caps).kind != MOE_VK_NO_OBSTACLE ||
             (moe_vk_variants[best].id == MOE_VK_A2 && !caps->dot_accelerated))))
        best++;
    return moe_vk_variants[best].tier;
}

static bool computes(const struct moe_vk_variant *variant, enum vkmoe_dtype weights,
                     enum vkmoe_dtype input)
{
    return (variant->types & MOE_VK_BIT(weights)) && (variant->inputs & MOE_VK_BIT(input));
}

// Any of the matmuls; the input of those that do not read x is f32 always.
static bool computes_any(const struct moe_vk_variant *variant, const vkmoe_layer_desc *layer,
                         enum vkmoe_dtype x_type)
{
    if (variant->id != MOE_VK_A0 && variant->nets != !layer)
        return false;
    if (!layer)
        return true;
    const bool shared = layer->d_shared_ff > 0, latent = layer->d_latent > 0;
    return computes(variant, layer->in_type, latent ? VKMOE_F32 : x_type) ||
           computes(variant, layer->out_type, VKMOE_F32) ||
           (shared && (computes(variant, layer->shared_in_type, x_type) ||
                       computes(variant, layer->shared_out_type, VKMOE_F32))) ||
           (latent && (computes(variant, layer->latent_type, x_type) ||
                       computes(variant, layer->latent_type, VKMOE_F32)));
}

static bool allowed(const struct moe_vk_variant *variant, enum vkmoe_precision precision)
{
    return variant->precisions & MOE_VK_BIT(precision);
}

struct moe_vk_obstacle moe_vk_obstacle(const struct moe_vk_variant *variant,
                                       const struct moe_vk_caps *caps,
                                       const vkmoe_layer_desc *layer,
                                       const struct moe_program_params *params)
{
    if (!allowed(variant, params->precision))
        return (struct moe_vk_obstacle){.kind = MOE_VK_NOT_ALLOWED};
    if (!computes_any(variant, layer, params->x_type))
        return (struct moe_vk_obstacle){.kind = MOE_VK_NO_KERNEL};
    struct moe_vk_obstacle of_device = device_obstacle(variant, caps);
    if (of_device.kind == MOE_VK_NO_OBSTACLE && (caps->disabled & MOE_VK_BIT(variant->id)))
        of_device.kind = MOE_VK_DISABLED;
    return of_device;
}

uint32_t moe_vk_candidates(const struct moe_vk_caps *caps, const vkmoe_layer_desc *layer,
                           const struct moe_program_params *params,
                           const struct moe_vk_variant *out[MOE_VK_N_VARIANTS])
{
    uint32_t n = 0;
    for (int i = 0; i < MOE_VK_N_VARIANTS; i++)
        if (moe_vk_obstacle(&moe_vk_variants[i], caps, layer, params).kind == MOE_VK_NO_OBSTACLE)
            out[n++] = &moe_vk_variants[i];
    return n;
}

bool moe_vk_why_not(const struct moe_vk_variant *variant, const struct moe_vk_caps *caps,
                    const vkmoe_layer_desc *layer, const struct moe_program_params *params,
                    char out[160])
{
    struct moe_vk_obstacle obstacle = moe_vk_obstacle(variant, caps, layer, params);
    switch (obstacle.kind) {
    case MOE_VK_NO_OBSTACLE:
        return false;
    case MOE_VK_NOT_ALLOWED:
        snprintf(out, 160, "precision %s does not allow it",
                 vkmoe_precision_name(params->precision));
        break;
    case MOE_VK_NO_KERNEL:
        if (!layer || variant->nets)
            snprintf(out, 160, "it computes %s", layer ? "networks, not layers" : "layers");
        else
            snprintf(out, 160, "it has no kernel for weights of %s and %s and x of %s",
                     vkmoe_dtype_name(layer->in_type), vkmoe_dtype_name(layer->out_type),
                     vkmoe_dtype_name(params->x_type));
        break;
    case MOE_VK_NO_VERSION:
        snprintf(out, 160, "it takes Vulkan 1.%" PRIu64 ", and there is 1.%" PRIu64,
                 obstacle.needs, obstacle.has);
        break;
    case MOE_VK_NO_FEATURE:
        snprintf(out, 160, "%s is not there or not enabled", obstacle.name);
        break;
    case MOE_VK_BEYOND_LIMIT:
        snprintf(out, 160, "it takes %" PRIu64 " of %s, and there are %" PRIu64, obstacle.needs,
                 obstacle.name, obstacle.has);
        break;
    case MOE_VK_NOT_BUILT:
        snprintf(out, 160, "the shader compiler of this build has not what it needs");
        break;
    case MOE_VK_NO_SHAPE:
        snprintf(out, 160,
                 "of the device's %" PRIu64 " shapes of matrices fewer than %" PRIu64
                 " fit its tiles", obstacle.has, obstacle.needs);
        break;
    case MOE_VK_NO_SUBGROUPS:
        snprintf(out, 160, "subgroups of %" PRIu64 " do not fill its workgroups", obstacle.has);
        break;
    case MOE_VK_DISABLED:
        snprintf(out, 160, "it is disabled by VKMOE_DISABLE, or by who made the context");
        break;
    }
    return true;
}

// Text goes on at out[at]; what has no room is left out.
static size_t append(char out[128], size_t at, const char *before, const char *text)
{
    int n = at < 128 ? snprintf(out + at, 128 - at, "%s%s", before, text) : 0;
    return at + (size_t) (n > 0 ? n : 0);
}

static size_t append_types(char out[128], size_t at, uint32_t types, uint32_t all)
{
    const char *before = " ";
    if (types == all)
        return append(out, at, before, "of any type");
    for (int t = 0; t < MOE_N_DTYPES; t++)
        if (types & MOE_VK_BIT(t)) {
            at = append(out, at, before, vkmoe_dtype_name((enum vkmoe_dtype) t));
            before = " or ";
        }
    return at;
}

void moe_vk_computes(const struct moe_vk_variant *variant, char out[128])
{
    const char *before = variant->nets ? "networks, precision " : "precision ";
    size_t at = 0;
    for (int p = VKMOE_PRECISION_EXACT; p <= VKMOE_PRECISION_INT8; p++)
        if (allowed(variant, (enum vkmoe_precision) p)) {
            at = append(out, at, before, vkmoe_precision_name((enum vkmoe_precision) p));
            before = " or ";
        }
    at = append(out, at, ", ", "weights");
    at = append_types(out, at, variant->types, (1u << MOE_N_DTYPES) - 1);
    at = append(out, at, ", ", "x");
    append_types(out, at, variant->inputs, (1u << MOE_N_FLOAT_DTYPES) - 1);
}

const struct moe_vk_variant *moe_vk_matmul_variant(const struct moe_vk_variant *variant,
                                                   enum vkmoe_dtype weights, enum vkmoe_dtype input)
{
    return variant && computes(variant, weights, input) ? variant : &moe_vk_variants[MOE_VK_A0];
}

const char *moe_vk_net_name(const struct moe_vk_variant *variant)
{
    if (variant->id == MOE_VK_A0)
        return variant->name;
    for (int i = 0; i < MOE_VK_N_VARIANTS; i++)
        if (moe_vk_variants[i].nets && moe_vk_variants[i].shape == variant->shape &&
            is_alike(moe_vk_variants[i].id, variant->id))
            return moe_vk_variants[i].name;
    return NULL;
}

static bool is_called(const struct moe_vk_variant *variant, const char *name, size_t size)
{
    const char *names[] = {variant->name, variant->kind};
    for (int i = 0; i < 2; i++)
        if (strlen(names[i]) == size && memcmp(names[i], name, size) == 0)
            return true;
    return false;
}

enum { LIST_SIZE = 256 };

// "a3, a3b (coopmat), a0 (fp32)", of the first n.
static void list_variants(char out[LIST_SIZE], int n)
{
    int at = 0;
    for (int i = 0; i < n && at < LIST_SIZE; i++) {
        const char *kind = moe_vk_variants[i].kind;
        bool last = i + 1 == n || strcmp(moe_vk_variants[i + 1].kind, kind) != 0;
        at += snprintf(out + at, (size_t) (LIST_SIZE - at), "%s%s%s%s%s", i > 0 ? ", " : "",
                       moe_vk_variants[i].name, last ? " (" : "", last ? kind : "",
                       last ? ")" : "");
    }
}

enum vkmoe_status moe_vk_parse_variants(const char *names, uint32_t *out)
{
    char known[LIST_SIZE];
    *out = 0;
    for (const char *name = names ? names : ""; *name;) {
        size_t size = strcspn(name, ",");
        uint32_t called = 0;
        for (int i = 0; i < MOE_VK_N_VARIANTS; i++)
            called |= is_called(&moe_vk_variants[i], name, size) ? MOE_VK_BIT(i) : 0;
        if (size > 0 && (called == 0 || (called & MOE_VK_BIT(MOE_VK_A0)))) {
            list_variants(known, MOE_VK_A0);
            return moe_fail(VKMOE_E_ARGUMENT,
                            "VKMOE_DISABLE or desc.disable: '%.*s' %s; there are: %s",
                            (int) moe_min(size, 64), name,
                            called ? "computes what no other does and cannot be disabled"
                                   : "is no variant that can be disabled",
                            known);
        }
        *out |= called;
        name += size + (name[size] == ',');
    }
    return VKMOE_OK;
}

// The best one that is called so; of those for networks, or for layers, if there is one.
static const struct moe_vk_variant *find(const char *name, bool nets)
{
    const struct moe_vk_variant *other = NULL;
    for (int i = MOE_VK_N_VARIANTS; i-- > 0;) {
        const struct moe_vk_variant *variant = &moe_vk_variants[i];
        if (is_called(variant, name, strlen(name)) &&
            (!other || other->nets != nets || variant->nets == nets))
            other = variant;
    }
    return other;
}

static enum vkmoe_status choose_named(struct moe_vk *vk, const vkmoe_layer_desc *layer,
                                      const struct moe_program_params *params,
                                      const struct moe_vk_variant **out)
{
    enum vkmoe_status status = VKMOE_OK;
    const char *name = params->variant;
    bool good;
    char why[160], known[LIST_SIZE];
    *out = find(name, !layer);
    if (!*out) {
        list_variants(known, MOE_VK_N_VARIANTS);
        return moe_fail(VKMOE_E_UNSUPPORTED, "variant '%.64s': there are only: %s", name, known);
    }
    if (moe_vk_why_not(*out, &vk->caps, layer, params, why))
        return moe_fail(VKMOE_E_UNSUPPORTED, "variant '%s' on %s: %s", name, vk->base.info.name,
                        why);
    TRY(moe_vk_judge(vk, *out, &good));
    if (!good)
        return moe_fail(VKMOE_E_UNSUPPORTED, "variant '%s' on %s: %s", name, vk->base.info.name,
                        moe_vk_verdict_text(vk, (*out)->id));

fail:
    return status;
}

// The first that is good and worth its place.
static enum vkmoe_status choose_best(struct moe_vk *vk, const struct moe_program_params *params,
                                     const struct moe_vk_variant *const *candidates, uint32_t n,
                                     const struct moe_vk_variant **out)
{
    enum vkmoe_status status = VKMOE_OK;
    for (uint32_t i = 0; i < n; i++) {
        bool good, in_doubt = moe_vk_doubt(candidates[i], &vk->caps) != NULL;
        if (in_doubt && !vk->probes && moe_vk_recall(vk, candidates[i]->id).seconds <= 0)
            continue; // not even tested
        TRY(moe_vk_judge(vk, candidates[i], &good));
        if (good)
            TRY(moe_vk_probe(vk, candidates[i]));
        if (in_doubt && moe_vk_known(vk, candidates[i]->id).seconds <= 0)
            continue;
        *out = candidates[i];
        enum moe_vk_state state = (enum moe_vk_state) moe_vk_known(vk, candidates[i]->id).state;
        if (good && state != MOE_VK_NOT_FASTER && state != MOE_VK_BAD)
            return VKMOE_OK;
    }
    return moe_fail(VKMOE_E_UNSUPPORTED, "precision %s: %s has no kernel for it",
                    vkmoe_precision_name(params->precision), vk->base.info.name);

fail:
    return status;
}

enum vkmoe_status moe_vk_choose(struct moe_vk *vk, const vkmoe_layer_desc *layer,
                                const struct moe_program_params *params,
                                const struct moe_vk_variant **out)
{
    const struct moe_vk_variant *candidates[MOE_VK_N_VARIANTS];
    if (params->variant)
        return choose_named(vk, layer, params, out);
    uint32_t n = moe_vk_candidates(&vk->caps, layer, params, candidates);
    return choose_best(vk, params, candidates, n, out);
}

enum vkmoe_status moe_vk_choose_without(struct moe_vk *vk, const vkmoe_layer_desc *layer,
                                        const struct moe_program_params *params,
                                        const struct moe_vk_variant *variant,
                                        const struct moe_vk_variant **out)
{
    const struct moe_vk_variant *candidates[MOE_VK_N_VARIANTS];
    uint32_t n = moe_vk_candidates(&vk->caps, layer, params, candidates), first = 0;
    while (first < n && candidates[first]->id <= variant->id)
        first++;
    return choose_best(vk, params, candidates + first, n - first, out);
}

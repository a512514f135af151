// SPDX-License-Identifier: MIT
// Which kernels compute a layer: the variants there are, what each needs, and what is known about
// them on a device. In this order: precision and features, the table of bad drivers, what the cache
// says of an earlier self-test, a self-test; then, on a GPU of our own, a timed probe. A context
// without a queue makes none of them, and the cache comes before the table there. What is not
// faster is left out where a probe or vkmoe_tune has timed it.
#ifndef MOE_VULKAN_CHOOSE_H
#define MOE_VULKAN_CHOOSE_H

#include "vulkan/vk.h"

enum moe_vk_variant_id { // best first; the last computes everything, everywhere
    MOE_VK_A4, // by matrices of any size, in the device's first units that fit, then in the others
    MOE_VK_A4_LAST = MOE_VK_A4 + 1,
    MOE_VK_A3, // by the device's first shape of cooperative matrices that fits, then the others
    MOE_VK_A3_LAST = MOE_VK_A3 + 3,
    MOE_VK_A3I, // by that of cooperative matrices of bytes
    MOE_VK_A3I_LAST = MOE_VK_A3I + 1,
    MOE_VK_A2,
    MOE_VK_A0N, // a0 without shared memory, where that is better than with it
    MOE_VK_A1,
    MOE_VK_NET_A4, // of networks: by matrices as a4
    MOE_VK_NET_A4_LAST = MOE_VK_NET_A4 + 1,
    MOE_VK_NET_A3, // as a3
    MOE_VK_NET_A3_LAST = MOE_VK_NET_A3 + 3,
    MOE_VK_NET_A0N,
    MOE_VK_A0,
    MOE_VK_N_VARIANTS,
};
_Static_assert((int) MOE_VK_N_VARIANTS <= (int) MOE_VK_MAX_VARIANTS, "room for the verdicts");

struct moe_vk_variant {
    enum moe_vk_variant_id id;
    const char *name;
    const char *kind;       // what it is made of, also a name: "fp16"
    const char *tier;       // of devices whose best variant it is
    uint32_t needs;         // features, as bits
    uint32_t invocations;   // of the largest workgroup of its kernels
    uint32_t shared;        // bytes that a workgroup of its kernels takes at most; 0: none
    uint32_t precisions;    // that allow it: bits 1 << enum vkmoe_precision
    uint32_t types, inputs; // weights, and x, that it computes: bits 1 << enum vkmoe_dtype
    bool rounds_x;          // to its own type, whatever x is
    bool rounds_hidden;     // and what is between an expert's two matmuls
    bool quantises;         // both of them to what quantise.comp makes, before its kernel
    uint32_t shape;         // its place among the shapes that fit, from 1 on; 0: it needs none
    bool flexible;          // among those of any size
    uint32_t api_version;   // that its SPIR-V takes; 0: the least
    enum vkmoe_arithmetic arithmetic; // of the products
    enum moe_spv_id gemm, gemm_bda;   // kernel of one matmul; gemm MOE_N_SPV: by address only
    enum moe_spv_id small, small_bda; // and of small tiles
    uint32_t small_rows, small_blocks; // rows of such a tile, row blocks of a workgroup over it
    uint32_t full_rows; // most rows of a full tile; `shared` is for MOE_TILE_FULL, see tiles.c
    // Of networks, whose other kernel makes gradients of matrices; else of layers. The last variant
    // computes both.
    bool nets;
    enum moe_spv_id dw, dw_bda;
};
extern const struct moe_vk_variant moe_vk_variants[MOE_VK_N_VARIANTS];

static inline bool moe_vk_is_own(const struct moe_vk_variant *variant, enum moe_spv_id spv)
{
    return spv == variant->gemm || spv == variant->gemm_bda || spv == variant->small ||
           spv == variant->small_bda ||
           (variant->quantises && spv == MOE_SPV_QUANTISE_BDA) ||
           (variant->nets && (spv == variant->dw || spv == variant->dw_bda));
}

// The tier of the best variant that a device can have, disabled or not; products of bytes count
// where there are instructions for them. Static text.
const char *moe_vk_tier(const struct moe_vk_caps *caps);

// The variants of a list "NAME,KIND,..." (or NULL), as bits 1 << enum moe_vk_variant_id; a kind is
// all of its variants.
// VKMOE_E_ARGUMENT: a name that is none, or that of the last variant, which there must be; the text
// lists the others.
enum vkmoe_status moe_vk_parse_variants(const char *names, uint32_t *out);

// The variants that may compute a plan, best first, and how many; the last one is a0. Here and
// below a layer NULL stands for networks, whose operands are f32, and weights of any type that a
// net may have. Pure.
uint32_t moe_vk_candidates(const struct moe_vk_caps *caps, const vkmoe_layer_desc *layer,
                           const struct moe_program_params *params,
                           const struct moe_vk_variant *out[MOE_VK_N_VARIANTS]);

// What keeps a variant from being a candidate.
struct moe_vk_obstacle {
    enum moe_vk_obstacle_kind {
        MOE_VK_NO_OBSTACLE,
        MOE_VK_NOT_ALLOWED, // by the plan's precision
        MOE_VK_NO_KERNEL,   // for the layer's types
        MOE_VK_NO_VERSION,  // of Vulkan: it needs 1.`needs` and there is 1.`has`
        MOE_VK_NO_FEATURE,
        MOE_VK_NOT_BUILT,    // the shader compiler could not
        MOE_VK_NO_SHAPE,     // of matrices: of the `has` there are fewer than `needs` fit
        MOE_VK_NO_SUBGROUPS, // of `has` invocations do not fill a workgroup
        MOE_VK_BEYOND_LIMIT,
        MOE_VK_DISABLED, // by the user
    } kind;
    const char *name;    // of the feature or limit, as Vulkan has it
    uint64_t needs, has; // of the limit
};
struct moe_vk_obstacle moe_vk_obstacle(const struct moe_vk_variant *variant,
                                       const struct moe_vk_caps *caps,
                                       const vkmoe_layer_desc *layer,
                                       const struct moe_program_params *params);

// Why a variant is not among the candidates, as text in `out`; false if it is. Pure.
bool moe_vk_why_not(const struct moe_vk_variant *variant, const struct moe_vk_caps *caps,
                    const vkmoe_layer_desc *layer, const struct moe_program_params *params,
                    char out[160]);

// Where a variant computes: "precision half, weights f16, x f32 or f16".
void moe_vk_computes(const struct moe_vk_variant *variant, char out[128]);

// The matrices that a variant computes with, or what those of any size are multiples of; m = 0: it
// needs none, or there are none for it.
struct moe_vk_shape moe_vk_variant_shape(const struct moe_vk_variant *variant,
                                         const struct moe_vk_caps *caps);

// Sets the specialisation constants that kernels by such matrices have in common. subgroups: of a
// workgroup.
void moe_vk_matrix_spec(const struct moe_vk_variant *variant, const struct moe_vk_shape *shape,
                        uint32_t subgroups, uint32_t spec[MOE_VK_MAX_SPEC]);

// Why only a tune that found it faster makes a variant the choice of plans that name none on this
// device, which may have no units for its matrices or has no instructions for its products; NULL:
// nothing like that is known.
const char *moe_vk_doubt(const struct moe_vk_variant *variant, const struct moe_vk_caps *caps);

// The name of the variant of networks that is like one of layers: a0's, or of the same kind and the
// same place among shapes; NULL: there is none. Pure.
const char *moe_vk_net_name(const struct moe_vk_variant *variant);

// What computes a matmul of a plan with a variant (NULL: a0): the variant where it has a kernel for
// weights and an input of these types, else a0. So a layer's two matmuls may differ. Pure.
const struct moe_vk_variant *moe_vk_matmul_variant(const struct moe_vk_variant *variant,
                                                   enum vkmoe_dtype weights,
                                                   enum vkmoe_dtype input);

// Where it is told, or what we saw ourselves, of a driver that computes a variant wrongly or does
// not survive it; NULL: nothing that we know of. Pure.
const char *moe_vk_known_bad(const struct moe_vk_caps *caps, enum moe_vk_variant_id variant);

// The variant of a plan: the one it names, or the best that is not found bad or slow. May run the
// self-test and the probe. VKMOE_E_UNSUPPORTED: what it names cannot be had; the text says why.
enum vkmoe_status moe_vk_choose(struct moe_vk *vk, const vkmoe_layer_desc *layer,
                                const struct moe_program_params *params,
                                const struct moe_vk_variant **out);

// The same for a plan that names none, among the candidates after `variant`.
enum vkmoe_status moe_vk_choose_without(struct moe_vk *vk, const vkmoe_layer_desc *layer,
                                        const struct moe_program_params *params,
                                        const struct moe_vk_variant *variant,
                                        const struct moe_vk_variant **out);

// program.c: compiles and makes pipelines, whatever is known of the variant. mark: the cache is to
// know of it, see moe_vk_begin_making.
// *own says of a failure that it is of a pipeline of the variant's own kernel, not one that it
// shares with a0.
enum vkmoe_status moe_vk_program_make(struct moe_vk *vk, const struct moe_graph *graph,
                                      const struct moe_program_params *params,
                                      const struct moe_vk_variant *variant, bool mark,
                                      struct moe_program **out, bool *own);

// ---- verdict.c: what is known of the variants on this device and driver ------------------------

enum moe_vk_state {
    MOE_VK_UNTESTED,
    MOE_VK_TRYING, // a self-test has begun; found in the cache: it has not ended
    MOE_VK_GOOD,
    MOE_VK_BAD,
    MOE_VK_TRYING_AGAIN, // after one that never ended
    MOE_VK_NOT_FASTER,   // good, but only for plans that name it
    MOE_VK_MAKING,       // pipelines of a plan are being made, after a good self-test
    MOE_VK_MAKING_AGAIN, // after a process that ended in that
    MOE_VK_N_STATES,
};

enum moe_vk_cause { // of a variant not being used
    MOE_VK_NO_CAUSE,
    MOE_VK_WRONG,       // the self-test computed something else
    MOE_VK_NO_PIPELINE, // the driver would not make one
    MOE_VK_FAILED,      // the device failed in the self-test
    MOE_VK_CRASHED,     // processes ended in the self-test, or where pipelines were made
    MOE_VK_BUSY,        // one of these began lately and has not ended: not decided
    MOE_VK_LISTED,      // the table of bad drivers
    MOE_VK_UNTESTABLE,  // no self-test could be made, for want of memory for instance
    MOE_VK_SLOWER,      // a tune found it not faster than what is used without it
    MOE_VK_N_CAUSES,
};

enum { MOE_VK_N_MADE = 40 };

// In the cache, behind a seal (store.c). Another device's, driver's or build's counts as absent.
struct moe_vk_record {
    char magic[8];
    uint8_t device[VK_UUID_SIZE], driver[VK_UUID_SIZE];
    uint32_t driver_version, n_variants;
    uint64_t shaders; // checksum of the variants' kernels
    struct moe_vk_verdict variants[MOE_VK_N_VARIANTS];
    uint32_t made[MOE_VK_N_MADE]; // checksums of pipelines that were made, the last ones first; 0:
                                  // none
};

// May this context use a variant? Reads the cache and runs the self-test where they are due.
// VKMOE_E_DEVICE_LOST: it was lost in the self-test; no other failure.
enum vkmoe_status moe_vk_judge(struct moe_vk *vk, const struct moe_vk_variant *variant, bool *good);

// Checksums of the pipelines of a program or a network that are its variant's own, each once. One
// more than are remembered is enough to know that they are not all.
struct moe_vk_own {
    const struct moe_vk_variant *variant;
    uint32_t pipelines[MOE_VK_N_MADE + 1], n;
};
// Any pipeline of the program; those that others share are left out.
void moe_vk_own_add(struct moe_vk_own *own, enum moe_spv_id spv,
                    const uint32_t spec[MOE_VK_MAX_SPEC]);

// Around making these pipelines: if the process does not survive it, a later one knows. True: a
// mark was written, and is to be taken away by `end`, whether or not they were made. There is none
// where all of them have been made before, in any process.
bool moe_vk_begin_making(struct moe_vk *vk, const struct moe_vk_own *own);
void moe_vk_end_making(struct moe_vk *vk, const struct moe_vk_own *own, bool made);

// What this context knows of a variant; `recall` asks the cache and the table of bad drivers first
// if that is nothing yet.
struct moe_vk_verdict moe_vk_known(struct moe_vk *vk, enum moe_vk_variant_id id);
struct moe_vk_verdict moe_vk_recall(struct moe_vk *vk, enum moe_vk_variant_id id);

// Is it this caller's turn to time a variant: is it good, and has nobody timed it, nor begun to in
// this context?
bool moe_vk_begin_probe(struct moe_vk *vk, enum moe_vk_variant_id id);

// From now on, here and for those who read the cache, a good variant is used where it is faster
// than what is used without it by MOE_VK_GAIN, and else only by plans that name it.
#define MOE_VK_GAIN 0.03
void moe_vk_set_times(struct moe_vk *vk, const struct moe_vk_variant *variant, double seconds,
                      double base_seconds);

// Nothing is known of any variant, here and in the cache.
void moe_vk_forget(struct moe_vk *vk);

// From now on a variant is bad, here and for those who read the cache.
void moe_vk_condemn(struct moe_vk *vk, const struct moe_vk_variant *variant,
                    enum moe_vk_cause cause);

// Why a variant is not good, "its self-test gave wrong results" for instance. Static text.
const char *moe_vk_verdict_text(struct moe_vk *vk, enum moe_vk_variant_id variant);

// ---- selftest.c --------------------------------------------------------------------------------

// Computes a small layer by a variant and by a0 on the device. *cause says how the variant failed,
// MOE_VK_NO_CAUSE that it did not. A failure: there was no test.
enum vkmoe_status moe_vk_self_test(struct moe_vk *vk, const struct moe_vk_variant *variant,
                                   enum moe_vk_cause *cause);

// ---- tune.c ------------------------------------------------------------------------------------

// Times a good variant that nobody has timed yet, on a GPU of our own.
enum vkmoe_status moe_vk_probe(struct moe_vk *vk, const struct moe_vk_variant *variant);

// Rounds of a probe that there is time for, when one takes round_ns: MOE_VK_PROBE_ROUNDS or fewer.
// At least some of the first number of tokens are made; of others 0 means that they are left out.
// Pure.
enum { MOE_VK_PROBE_ROUNDS = 15 };
uint32_t moe_vk_probe_rounds(double round_ns, double left_ns, bool first);

// The rules of vkmoe_context_kernels.
enum vkmoe_status moe_vk_kernels(struct moe_device *device, vkmoe_kernel_info *out, uint32_t *n);

// The rules of vkmoe_tune.
enum vkmoe_status moe_vk_tune(struct moe_device *device, bool fresh, vkmoe_tune_verdict *out,
                              uint32_t *n);

#endif

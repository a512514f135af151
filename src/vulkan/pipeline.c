// SPDX-License-Identifier: MIT
// One descriptor set layout and one pipeline layout for every kernel; pipelines made at first use
// and shared by all programs of a device.
#include "vulkan/choose.h"

#include <string.h>

#include "base/bits.h"
#include "params.h"

enum vkmoe_status moe_vk_layouts_create(struct moe_vk *vk)
{
    enum vkmoe_status status = VKMOE_OK;
    VkDescriptorSetLayoutBinding bindings[4];
    for (uint32_t i = 0; i < 4; i++)
        bindings[i] =
            (VkDescriptorSetLayoutBinding){.binding = i,
                                           .descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER,
                                           .descriptorCount = 1,
                                           .stageFlags = VK_SHADER_STAGE_COMPUTE_BIT};
    VkDescriptorSetLayoutCreateInfo set = {.sType =
                                               VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO,
                                           .bindingCount = 4,
                                           .pBindings = bindings};
    VK_TRY(vk, vk->fn.vkCreateDescriptorSetLayout(vk->device, &set, NULL, &vk->set_layout));

    VkPushConstantRange push = {.stageFlags = VK_SHADER_STAGE_COMPUTE_BIT, .size = 128};
    VkPipelineLayoutCreateInfo layout = {.sType = VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO,
                                         .setLayoutCount = 1,
                                         .pSetLayouts = &vk->set_layout,
                                         .pushConstantRangeCount = 1,
                                         .pPushConstantRanges = &push};
    VK_TRY(vk, vk->fn.vkCreatePipelineLayout(vk->device, &layout, NULL, &vk->pipeline_layout));
    return VKMOE_OK;

fail:
    return status;
}

// Is it a kernel for subgroups that are whole? Those that multiply matrices are; what a variant has
// beside them is not.
static bool counts_on_subgroups(enum moe_spv_id spv)
{
    for (int i = 0; i < MOE_VK_N_VARIANTS; i++) {
        const struct moe_vk_variant *v = &moe_vk_variants[i];
        if (v->shape > 0 &&
            (spv == v->gemm_bda || spv == v->small_bda || (v->nets && spv == v->dw_bda)))
            return true;
    }
    return false;
}

static enum vkmoe_status create_pipeline(struct moe_vk *vk, struct moe_vk_pipeline *pipeline)
{
    enum vkmoe_status status = VKMOE_OK;
    const struct moe_spv *spv = &moe_spv_table[pipeline->spv];
    // For layers and tools that look at pipelines: the values are in the words.
    VkSpecializationMapEntry entries[MOE_VK_MAX_SPEC];
    for (uint32_t i = 0; i < MOE_VK_MAX_SPEC; i++)
        entries[i] = (VkSpecializationMapEntry){
            .constantID = i, .offset = i * (uint32_t) sizeof(uint32_t), .size = sizeof(uint32_t)};
    VkSpecializationInfo spec = {.mapEntryCount = MOE_VK_MAX_SPEC,
                                 .pMapEntries = entries,
                                 .dataSize = sizeof pipeline->spec,
                                 .pData = pipeline->spec};
    uint32_t *words = NULL;
    VkShaderModuleCreateInfo module = {.sType = VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO};
    VkComputePipelineCreateInfo info = {
        .sType = VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO,
        .stage = {.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO,
                  .stage = VK_SHADER_STAGE_COMPUTE_BIT,
                  .pName = "main",
                  .pSpecializationInfo = &spec},
        .layout = vk->pipeline_layout};
    VkPipelineShaderStageRequiredSubgroupSizeCreateInfo subgroups = {
        .sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_REQUIRED_SUBGROUP_SIZE_CREATE_INFO,
        .requiredSubgroupSize = vk->caps.subgroup_size};
    if (counts_on_subgroups(pipeline->spv)) {
        info.stage.flags = VK_PIPELINE_SHADER_STAGE_CREATE_REQUIRE_FULL_SUBGROUPS_BIT;
        if (vk->caps.subgroup_pinned)
            info.stage.pNext = &subgroups;
    }
    TRY(moe_vk_specialise(vk->base.host, spv, pipeline->spec, &words, &module.codeSize));
    module.pCode = words;
    VK_TRY(vk, vk->fn.vkCreateShaderModule(vk->device, &module, NULL, &info.stage.module));
    VK_TRY(vk, vk->fn.vkCreateComputePipelines(vk->device, vk->pipeline_cache, 1, &info, NULL,
                                               &pipeline->handle));
    moe_vk_name(vk, VK_OBJECT_TYPE_PIPELINE, (uint64_t) pipeline->handle, spv->name);

fail:
    vk->fn.vkDestroyShaderModule(vk->device, info.stage.module, NULL);
    moe_free(vk->base.host, words);
    return status;
}

static struct moe_vk_pipeline *find(const struct moe_vk *vk, enum moe_spv_id spv,
                                    const uint32_t spec[MOE_VK_MAX_SPEC])
{
    for (struct moe_vk_pipeline *p = vk->pipelines; p; p = p->next)
        if (p->spv == spv && memcmp(p->spec, spec, sizeof p->spec) == 0)
            return p;
    return NULL;
}

static enum vkmoe_status make(struct moe_vk *vk, enum moe_spv_id spv,
                              const uint32_t spec[MOE_VK_MAX_SPEC], struct moe_vk_pipeline **out)
{
    struct moe_vk_pipeline *pipeline = moe_alloc(vk->base.host, sizeof *pipeline);
    if (!pipeline)
        return moe_fail(VKMOE_E_MEMORY, "pipeline %s: %zu bytes", moe_spv_table[spv].name,
                        sizeof *pipeline);
    pipeline->spv = spv;
    memcpy(pipeline->spec, spec, sizeof pipeline->spec);
    moe_trace(vk->base.host, moe_spv_table[spv].name, true);
    enum vkmoe_status status = create_pipeline(vk, pipeline);
    moe_trace(vk->base.host, moe_spv_table[spv].name, false);
    if (status != VKMOE_OK) {
        moe_free(vk->base.host, pipeline);
        return status;
    }
    pipeline->next = vk->pipelines;
    vk->pipelines = *out = pipeline;
    return VKMOE_OK;
}

enum vkmoe_status moe_vk_pipeline_get(struct moe_vk *vk, enum moe_spv_id spv,
                                      const uint32_t spec[MOE_VK_MAX_SPEC], VkPipeline *out)
{
    enum vkmoe_status status = VKMOE_OK;
    pthread_mutex_lock(&vk->pipelines_lock);
    struct moe_vk_pipeline *pipeline = find(vk, spv, spec);
    if (!pipeline)
        status = make(vk, spv, spec, &pipeline);
    if (status == VKMOE_OK)
        *out = pipeline->handle;
    pthread_mutex_unlock(&vk->pipelines_lock);
    return status;
}

void moe_vk_pipelines_destroy(struct moe_vk *vk)
{
    while (vk->pipelines) {
        struct moe_vk_pipeline *pipeline = vk->pipelines;
        vk->pipelines = pipeline->next;
        vk->fn.vkDestroyPipeline(vk->device, pipeline->handle, NULL);
        moe_free(vk->base.host, pipeline);
    }
}

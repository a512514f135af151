// SPDX-License-Identifier: MIT
// Products of four signed bytes by four, and their sum. The kernel says, before any include,
//   #extension GL_EXT_spirv_intrinsics : require

// OpSDot with capabilities DotProduct and DotProductInput4x8BitPacked; format is 0 for those.
spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6019, 6018],
                  id = 4450)
int moe_sdot(uint a, uint b, spirv_literal uint format);

int dot_bytes(uint a, uint b)
{
    return moe_sdot(a, b, 0);
}

// SPDX-License-Identifier: MIT
// trainer.h alone, twice, as C11 and C++17: every init sets its size and its defaults.
#include <vkmoe/trainer.h>
#include <vkmoe/trainer.h>

int main(void)
{
    vkmoe_trainer_desc desc = vkmoe_trainer_desc_init();
    bool defaults = desc.checkpoint_seconds == 60 && !desc.config && !desc.resume && !desc.progress;
    return defaults && desc.struct_size == sizeof desc ? 0 : 1;
}

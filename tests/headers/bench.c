// SPDX-License-Identifier: MIT
// bench.h alone, twice, as C11 and C++17: every init sets its size and its defaults.
#include <vkmoe/bench.h>
#include <vkmoe/bench.h>

int main(void)
{
    vkmoe_probe_desc probe = vkmoe_probe_desc_init();
    vkmoe_time_desc time = vkmoe_time_desc_init();
    vkmoe_tune_desc tune = vkmoe_tune_desc_init();
    bool ok = probe.struct_size == sizeof probe && probe.read_size == 0 &&
              time.struct_size == sizeof time && !time.binds && !time.ios && time.n_binds == 0 &&
              time.n_tokens == 0 && tune.struct_size == sizeof tune && !tune.fresh;
    return ok ? 0 : 1;
}

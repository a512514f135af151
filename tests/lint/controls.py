# SPDX-License-Identifier: MIT
"""Negative controls: each linter must refuse its bad samples and accept the good ones."""
import sys

import exports
import layers
import shell
import sizes
import style

SPDX = '// SPDX-License-Identifier: MIT\n'
GOOD = SPDX + '#include "core/graph.h"\n\nint moe_x(int a)\n{\n    return a;\n}\n'


def function_of(n_lines):
    return 'void f(void)\n{\n' + '    g();\n' * (n_lines - 3) + '}\n'


SWITCH = 'int f(int k)\n{\n    switch (k) {\n    case %s:\n        return 1;\n' \
         '    default:\n        return 0;\n    }\n}\n'
NESTED = 'int f(int k, int m)\n{\n    switch (k) {\n    case MOE_OP_ROUTE:\n' \
         '        switch (m) {\n        case 1:\n            return 1;\n' \
         '        default:\n            return 2;\n' \
         '        }\n    }\n    return 0;\n}\n'

# (linter, path, text, part of the expected message; None: no finding)
SAMPLES = [
    (layers, 'src/cpu/x.c', GOOD, None),
    (layers, 'src/base/x.c', '#include "core/graph.h"\n', 'base may not include core'),
    (layers, 'src/core/x.c', '#include "backend/backend.h"\n', 'core may not include backend'),
    (layers, 'src/cpu/x.c', '#include "vulkan/vk.h"\n', 'is for src/vulkan/'),
    (layers, 'src/vulkan/x.c', '#include "cpu/kernels.h"\n', 'vulkan may not include cpu'),
    (layers, 'src/api/x.c', '#include "cpu/kernels.h"\n', 'api may not include cpu'),
    (layers, 'src/api/x.c', '#  include "vulkan/vk.h"\n', 'is for src/vulkan/'),
    (layers, 'src/model/x.c', '#include "backend/backend.h"\n', 'model may not include backend'),
    (layers, 'src/model/x.c', '#include "../backend/backend.h"\n', 'paths start at src/'),
    (layers, 'src/other/x.c', '#include "base/host.h"\n', 'not a part'),
    (layers, 'src/vulkan/loader.c', '#include <volk.h>\n', None),
    (layers, 'src/vulkan/device.c', '#include <volk.h>\n', 'src/vulkan/loader.c only'),
    (layers, 'src/core/x.c', '#include <vulkan/vulkan.h>\n', 'is for src/vulkan/'),
    (layers, 'tools/x.c', '#include <vulkan/vulkan.h>\n', 'is for src/vulkan/'),
    (layers, 'tools/embed/x.c', '#include <vulkan/vulkan.h>\n', None),
    (layers, 'src/core/x.c', '#include <jansson.h>\n', 'is for src/model/'),
    (layers, 'tools/x.c', '#include "cli.h"\n#include <vkmoe/vkmoe.h>\n', None),
    (layers, 'tools/x.c', '#include "core/graph.h"\n', 'a tool includes its own headers'),
    (layers, 'include/vkmoe/x.h', '#include "vkmoe.h"\n', 'an installed header'),
    (layers, 'src/core/x.c', 'x = getenv("A");\n', 'the environment is read in'),
    (layers, 'src/api/env.c', 'x = getenv("A");\n', None),
    (layers, 'src/core/x.c', 'x = malloc(4);\n', 'memory comes from moe_alloc'),
    (layers, 'src/model/x.c', 'free(json_dumps(x, 0));\n', None),
    (layers, 'src/model/x.c', 'x = malloc(4);\n', 'memory comes from moe_alloc'),
    (layers, 'src/core/x.c', 'host->free(u, p); moe_free(h, p); // free(p)\n', None),
    (layers, 'src/core/x.c', 'printf("x");\n', 'never prints'),
    (layers, 'src/core/x.c', 'exit(1);\n', 'never prints or ends'),
    (sizes, 'src/core/x.c', 'int a;\n' * 600, None),
    (sizes, 'src/core/x.c', 'int a;\n' * 601, '601 lines'),
    (sizes, 'tools/x.py', 'a = 1\n' * 601, '601 lines'),
    (sizes, 'src/core/x.c', function_of(100), None),
    (sizes, 'src/core/x.c', function_of(101), 'a function of 101 lines'),
    (sizes, 'shaders/x.comp', 'layout(local_size_x = 1) in;\n' + function_of(101), '101 lines'),
    (sizes, 'src/core/x.c', 'struct s {\n' + '    int a;\n' * 200 + '};\n', None),
    (sizes, 'include/x.h', 'extern "C" {\n' + function_of(101) + '}\n', '101 lines'),
    (sizes, 'src/core/x.c', '#define M(x) \\\n    if (x) { \\\n        y\n' + function_of(101),
     '101 lines'),
    (sizes, 'src/core/x.c', '// {\nchar c = \'{\';\n' + function_of(101), '101 lines'),
    (style, 'src/core/x.c', GOOD, None),
    (style, 'src/core/x.c', SPDX + '\tint a;\n', 'a tab'),
    (style, 'src/core/x.c', SPDX + 'int a; \n', 'at the end of the line'),
    (style, 'src/core/x.c', SPDX + 'int a;\r\n', 'at the end of the line'),
    (style, 'src/core/x.c', SPDX + '//' + 'x' * 98 + '\n', None),
    (style, 'src/core/x.c', SPDX + '//' + 'x' * 99 + '\n', '101 columns'),
    (style, 'src/core/x.c', SPDX + '// TO' 'DO\n', 'finish it'),
    (style, 'src/core/x.c', 'int a;\n', 'licence line'),
    (style, 'src/core/x.c', SPDX + 'int a;', 'one line feed'),
    (style, 'src/core/x.c', SPDX + 'int a;\n\n', 'one line feed'),
    (style, 'tools/x.sh', '#!/bin/sh\n# SPDX-License-Identifier: MIT\n', None),
    (style, 'shaders/x.comp', '#version 450\n' + SPDX, None),
    (style, 'src/core/x.c', SPDX + SWITCH % 'MOE_OP_ROUTE', 'has a default'),
    (style, 'src/core/x.c', SPDX + SWITCH % 'MOE_NET_ACT', 'has a default'),
    (style, 'src/core/x.c', SPDX + SWITCH % 'VKMOE_F32', None),
    (style, 'src/core/x.c', SPDX + NESTED, None),
    (shell, 'tools/x.sh', '#!/bin/sh\nif true; then :; fi\n', None),
    (shell, 'tools/x.sh', '#!/bin/sh\nif true; then\n', 'end of file'),
    (shell, '.ci/run', '#!/usr/bin/env bash\nx=(1 2\n', 'bash'),
]


def check_samples():
    for linter, path, text, expected in SAMPLES:
        messages = [message for _, message in linter.check(path, text)]
        right = not messages if expected is None else any(expected in m for m in messages)
        if not right:
            yield f'{linter.__name__} on {path} {text[:60]!r}: want {expected!r}, got {messages}'


def check_exports():
    stored = ['vkmoe_a', 'vkmoe_b']
    for got, n_expected in [(['vkmoe_a', 'vkmoe_b'], 0), (['vkmoe_a'], 1),
                            (['vkmoe_a', 'vkmoe_b', 'vkmoe_c'], 1),
                            (['vkmoe_a', 'vkmoe_b', 'vkCreateDevice'], 1)]:
        if len(list(exports.compare(got, stored))) != n_expected:
            yield f'exports of {got}: want {n_expected} findings'


def main():
    wrong = list(check_samples()) + list(check_exports())
    print('\n'.join(wrong + [f'{len(SAMPLES)} samples, {len(wrong)} judged wrongly']))
    sys.exit(1 if wrong else 0)


if __name__ == '__main__':
    main()

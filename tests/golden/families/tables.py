# SPDX-License-Identifier: MIT
"""All families, in the order in which they are made."""
import table_gguf
import table_mixed
import table_original
import table_quantised
import table_sigmoid
import table_softmax
import table_variants

FAMILIES = (*table_softmax.FAMILIES, *table_sigmoid.FAMILIES,
            *table_mixed.FAMILIES, *table_variants.FAMILIES, *table_original.FAMILIES,
            *table_quantised.FAMILIES)
GGUFS = {**table_gguf.GGUFS, **table_quantised.GGUFS}

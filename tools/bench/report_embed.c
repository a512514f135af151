// SPDX-License-Identifier: MIT
// Style and script of the page, which the build makes texts of.
#include "report.h"

static const struct {
    const char *name, *text;
} texts[] = {
#include "bench_report_texts.h"
};

void report_style(FILE *page)
{
    fputs(texts[0].text, page);
}

void report_script(FILE *page)
{
    fputs(texts[1].text, page);
}

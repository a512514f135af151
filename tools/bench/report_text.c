// SPDX-License-Identifier: MIT
// Numbers as people read them. Three digits, and spaces that do not break.
#include "report.h"

#include <math.h>

#define THIN "\u202f"

// Three significant digits: "41.2", "812", "0.072".
static void put_digits(double value, char *out, size_t size)
{
    const double rounded = value < 1 ? value : value < 9.995 ? 2 : value < 99.95 ? 1 : 0;
    if (value > 0 && value < 1)
        snprintf(out, size, "%.3g", value);
    else
        snprintf(out, size, "%.*f", value > 0 ? (int) rounded : 0, value);
}

static const char *unknown(char *out)
{
    snprintf(out, REPORT_TEXT, "\u2013");
    return out;
}

const char *report_si(double value, const char *unit, char *out)
{
    static const char *const prefixes[] = {"", "k", "M", "G", "T", "P", "E"};
    char digits[REPORT_TEXT / 2];
    size_t i = 0;
    if (!isfinite(value) || value <= 0 || value > 1e21)
        return unknown(out);
    for (; value >= 999.5 && i + 1 < sizeof prefixes / sizeof *prefixes; i++)
        value /= 1000;
    put_digits(value, digits, sizeof digits);
    snprintf(out, REPORT_TEXT, "%s%s%s%s", digits, *unit || i ? THIN : "", prefixes[i], unit);
    return out;
}

const char *report_count(double value, char *out)
{
    char digits[REPORT_TEXT / 2];
    if (!isfinite(value) || value < 0 || value >= 1e12)
        return unknown(out);
    if (value < 100 && value == floor(value)) {
        snprintf(out, REPORT_TEXT, "%.0f", value);
        return out;
    }
    if (value < 100) {
        put_digits(value, out, REPORT_TEXT);
        return out;
    }
    const double step = pow(10, fmax(0, floor(log10(value)) - 2));
    const int n = snprintf(digits, sizeof digits, "%.0f", round(value / step) * step);
    char *end = out;
    for (int i = 0; i < n; i++) {
        if (i > 0 && (n - i) % 3 == 0)
            end += snprintf(end, 4, "%s", THIN);
        *end++ = digits[i];
    }
    *end = '\0';
    return out;
}

const char *report_time(double us, char *out)
{
    char digits[REPORT_TEXT / 2];
    if (!isfinite(us) || us < 0 || us > 1e15)
        return unknown(out);
    const double unit = us < 999.5 ? 1 : us < 999.5e3 ? 1e3 : 1e6;
    put_digits(us / unit, digits, sizeof digits);
    snprintf(out, REPORT_TEXT, "%s" THIN "%s", digits,
             unit < 1e3 ? "\u00b5s" : unit < 1e6 ? "ms" : "s");
    return out;
}

const char *report_percent(double fraction, char *out)
{
    if (!isfinite(fraction) || fabs(fraction) > 1e6)
        return unknown(out);
    snprintf(out, REPORT_TEXT, "%.*f" THIN "%%", fabs(fraction) < 0.0995 ? 1 : 0, 100 * fraction);
    return out;
}

const char *report_ratio(double ratio, char *out)
{
    char digits[REPORT_TEXT / 2];
    if (!isfinite(ratio) || ratio < 0 || ratio > 1e9)
        return unknown(out);
    put_digits(ratio, digits, sizeof digits);
    snprintf(out, REPORT_TEXT, "%s\u00d7", digits);
    return out;
}

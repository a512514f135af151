// SPDX-License-Identifier: MIT
// Plots with logarithmic axes, as SVG. A gap of the grid is a factor of ten, or of less where an
// axis is short.
#include "report.h"

#include <math.h>
#include <stdlib.h>

// What can be measured at all; a file may say anything.
static const double least = 1e-30, most = 1e30;

void chart_add(struct chart_axis *axis, double value)
{
    if (!(value >= least && value <= most))
        return;
    axis->low = axis->low > 0 ? fmin(axis->low, value) : value;
    axis->high = fmax(axis->high, value);
}

void chart_widen(struct chart_axis *axis)
{
    if (!(axis->low > 0))
        axis->low = axis->high = 1;
    const double room = fmax(pow(axis->high / axis->low, 0.05), 1.25);
    axis->low /= room;
    axis->high *= room;
}

static double place(const struct chart_axis *axis, double value)
{
    const double inside = fmax(axis->low, fmin(axis->high, value));
    return 100 * log(inside / axis->low) / log(axis->high / axis->low);
}

double chart_x(const struct chart *chart, double value)
{
    return place(&chart->x, value);
}

double chart_y(const struct chart *chart, double value)
{
    return 100 - place(&chart->y, value);
}

// ---- ticks -------------------------------------------------------------------------------------

// The i-th tick at or above the axis' beginning, up to its end; 0: there is no such tick.
static double tick(const struct chart_axis *axis, int i)
{
    const double span = log10(axis->high / axis->low);
    double value;
    if (axis->unit == CHART_TOKENS) {
        const double step = span > 2.2 ? 3 : span > 1.3 ? 2 : 1;
        value = exp2(step * (ceil(log2(axis->low) / step - 1e-9) + i));
    } else if (span < 1.7) {
        static const double within[] = {1, 2, 5};
        int k = (int) floor(log10(axis->low)) * 3;
        const double first = pow(10, floor(log10(axis->low)));
        k += axis->low > 5 * first ? 3 : axis->low > 2 * first ? 2 : axis->low > first ? 1 : 0;
        k += i;
        const int decade = (k - ((k % 3) + 3) % 3) / 3;
        value = within[((k % 3) + 3) % 3] * pow(10, decade);
    } else {
        const double step = span > 9 ? 2 : 1;
        value = pow(10, step * (ceil(log10(axis->low) / step - 1e-9) + i));
    }
    return value <= axis->high * (1 + 1e-9) ? value : 0;
}

static void tick_text(const struct chart_axis *axis, double value, char *out)
{
    if (axis->unit == CHART_TOKENS)
        snprintf(out, REPORT_TEXT, "%.0f", value);
    else if (axis->unit == CHART_TIME)
        report_time(value, out);
    else
        report_si(value, "", out);
    // "1.00 k": the digits behind the point are zeros.
    char *point = strstr(out, ".0");
    if (point && strtod(out, NULL) >= 1)
        memmove(point, point + 1 + strspn(point + 1, "0"), strlen(point + strspn(point, ".0")) + 1);
}

static void put_ticks(const struct chart *chart)
{
    char text[REPORT_TEXT];
    double value;
    for (int i = 0; (value = tick(&chart->y, i)) > 0; i++) {
        const double y = chart_y(chart, value);
        tick_text(&chart->y, value, text);
        fprintf(chart->page,
                "<line class=\"grid\" x1=\"0\" x2=\"100%%\" y1=\"%.2f%%\" y2=\"%.2f%%\"/>"
                "<text x=\"0\" dx=\"-7\" y=\"%.2f%%\" dy=\".35em\" text-anchor=\"end\">%s</text>\n",
                y, y, y, text);
    }
    for (int i = 0; (value = tick(&chart->x, i)) > 0; i++) {
        const double x = chart_x(chart, value);
        tick_text(&chart->x, value, text);
        fprintf(chart->page,
                "<line class=\"grid\" x1=\"%.2f%%\" x2=\"%.2f%%\" y1=\"0\" y2=\"100%%\"/>"
                "<text x=\"%.2f%%\" y=\"100%%\" dy=\"1.4em\" text-anchor=\"middle\">%s</text>\n",
                x, x, x, text);
    }
}

void chart_begin(const struct chart *chart, unsigned height, const char *label)
{
    fprintf(chart->page, "<div class=\"plot\"><svg role=\"img\" height=\"%u\" aria-label=\"",
            height);
    html_text(chart->page, label);
    fputs("\">\n<rect class=\"frame\" width=\"100%\" height=\"100%\"/>\n", chart->page);
    put_ticks(chart);
}

void chart_end(const struct chart *chart)
{
    fputs("</svg></div>\n", chart->page);
}

// ---- lines and markers -------------------------------------------------------------------------

void chart_line(const struct chart *chart, const char *style, const double from[2],
                const double to[2])
{
    fprintf(chart->page,
            "<line class=\"%s\" x1=\"%.2f%%\" y1=\"%.2f%%\" x2=\"%.2f%%\" y2=\"%.2f%%\"/>\n", style,
            chart_x(chart, from[0]), chart_y(chart, from[1]), chart_x(chart, to[0]),
            chart_y(chart, to[1]));
}

static const char *const shapes[] = {
    "M-4.5,0a4.5,4.5 0 1,0 9,0a4.5,4.5 0 1,0 -9,0z", // circle
    "M-4,-4h8v8h-8z",                                // square
    "M0,-5.6L5.6,0L0,5.6L-5.6,0z",                   // diamond
    "M0,-5.2L5,3.8H-5z",                             // triangle
    "M0,5.2L5,-3.8H-5z",                             // triangle on its head
    "M-5.2,-1.8h3.4v-3.4h3.6v3.4h3.4v3.6h-3.4v3.4h-3.6v-3.4h-3.4z", // cross
    "M0,-5.5L5.2,-1.7L3.2,4.5H-3.2L-5.2,-1.7z",                     // pentagon
    "M-6,-2.6h12v5.2h-12z",                                         // bar
    "M-3.3,0a3.3,3.3 0 1,0 6.6,0a3.3,3.3 0 1,0 -6.6,0z",            // dot
};
enum { N_SHAPES = sizeof shapes / sizeof *shapes };

void chart_shapes(FILE *page)
{
    fputs("<svg width=\"0\" height=\"0\" class=\"shapes\" aria-hidden=\"true\"><defs>", page);
    for (int i = 0; i < N_SHAPES; i++)
        fprintf(page, "<path id=\"shape%d\" d=\"%s\"/>", i, shapes[i]);
    fputs("</defs></svg>\n", page);
}

void chart_mark(const struct chart *chart, uint32_t shape, double x, double y)
{
    const uint32_t known = shape == CHART_DOT ? shape : shape % CHART_DOT;
    fprintf(chart->page, "<use href=\"#shape%u\" x=\"%.2f%%\" y=\"%.2f%%\"/>", (unsigned) known,
            chart_x(chart, x), chart_y(chart, y));
}

void chart_shape_sample(FILE *page, uint32_t shape)
{
    fprintf(page,
            "<svg class=\"sample\" width=\"14\" height=\"14\" viewBox=\"-7 -7 14 14\" "
            "aria-hidden=\"true\"><use href=\"#shape%u\"/></svg>", (unsigned) (shape % CHART_DOT));
}

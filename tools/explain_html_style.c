// SPDX-License-Identifier: MIT
// The look of the page of vkmoe explain. Lengths inside charts are percentages, so that they follow
// the width of a screen while text keeps its size. Cells of the heat map are a colour with an
// opacity; t0 to t10 are its tenths, and say which of two inks can be read on it.
#include "explain.h"

static const char style[] =
    ":root{color-scheme:light dark;--bg:#f5f6f9;--card:#fff;--ink:#14181f;--muted:#545e6e;"
    "--line:#dde2ea;--track:#eceff4;--heat:#0b3d7a;--bar:#2b66ad;--minus:#b4511c;--over:#fff}\n"
    "@media(prefers-color-scheme:dark){:root{--bg:#0e1217;--card:#161c24;--ink:#e7ecf3;"
    "--muted:#a3aebd;--line:#2a3442;--track:#202934;--heat:#8fc1ff;--bar:#6aa9f0;--minus:#f0a36a;"
    "--over:#0b0f14}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0;background:var(--bg);color:var(--ink);"
    "font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}\n"
    "main{max-width:1120px;margin:0 auto;padding:28px 20px 56px}\n"
    "h1{font-size:26px;line-height:1.25;margin:0 0 4px;letter-spacing:-.01em}\n"
    "h2{font-size:17px;margin:0 0 2px}\n"
    "h3{font-size:15px;margin:0}\n"
    "h4{font-size:12px;margin:14px 0 4px;color:var(--muted);font-weight:600}\n"
    "p{margin:0}\n"
    ".note{color:var(--muted);font-size:13px}\n"
    ".card{background:var(--card);border:1px solid var(--line);border-radius:10px;"
    "padding:16px 18px;min-width:0}\n"
    ".tiles{display:grid;grid-template-columns:repeat(4,1fr);gap:12px;margin:20px 0}\n"
    ".tiles dt{font-size:12px;color:var(--muted);font-weight:600}\n"
    ".tiles dd{margin:0}\n"
    ".tiles .big{font-size:24px;font-weight:650;line-height:1.3;letter-spacing:-.01em}\n"
    ".pair{display:grid;grid-template-columns:5fr 8fr;gap:12px;margin-bottom:28px}\n"
    ".grid{display:grid;grid-template-columns:repeat(auto-fill,minmax(310px,1fr));gap:12px;"
    "margin:10px 0 28px}\n"
    ".scroll{overflow-x:auto;margin-top:10px}\n"
    "svg{display:block;width:100%;font:12px system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}\n"
    "svg text{fill:var(--ink);dominant-baseline:central}\n"
    "svg .dim{fill:var(--muted)}svg .bar{fill:var(--bar)}svg .minus{fill:var(--minus)}\n"
    "svg .track{fill:var(--track)}svg .heat{fill:var(--heat)}svg .pixel{fill:var(--ink)}\n"
    "svg .axis{stroke:var(--line)}svg .even{stroke:var(--muted);stroke-dasharray:3 3}\n"
    "svg .t8,svg .t9,svg .t10{fill:var(--over)}\n"
    "@media(prefers-color-scheme:dark){svg .t6,svg .t7{fill:var(--over)}}\n"
    ".head{display:flex;justify-content:space-between;align-items:baseline;gap:8px}\n"
    ".images{display:flex;gap:6px;flex-wrap:wrap;margin:0;padding:0;list-style:none}\n"
    ".images li{width:52px;font-size:11px;line-height:1.35;color:var(--muted);text-align:center}\n"
    ".images.plain li{width:84px;text-align:left}\n"
    ".images svg{border:1px solid var(--line);border-radius:4px;margin-bottom:2px}\n"
    ".map{display:flex;gap:14px;align-items:center}\n"
    ".map svg{width:132px;flex:none;border:1px solid var(--line);border-radius:4px}\n"
    "table{border-collapse:collapse;width:100%;font-size:13px;font-variant-numeric:tabular-nums}\n"
    "th,td{padding:4px 8px;text-align:right;border-top:1px solid var(--line);white-space:nowrap}\n"
    "th{color:var(--muted);font-weight:600}\n"
    "thead th{border-top:0}\n"
    "th:first-child,td:first-child{text-align:left;padding-left:0}\n"
    "details{margin-bottom:28px}\n"
    "summary{cursor:pointer;font-weight:600}\n"
    "section{margin-bottom:8px}\n"
    "@media(max-width:820px){.pair{grid-template-columns:1fr}"
    ".tiles{grid-template-columns:1fr 1fr}}\n"
    "@media(max-width:420px){main{padding:20px 12px 40px}.card{padding:14px}"
    ".tiles .big{font-size:20px}.grid{grid-template-columns:1fr}}\n";

void explain_html_style(FILE *page)
{
    fputs(style, page);
}

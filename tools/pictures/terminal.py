"""Draw what a terminal shows as SVG.

A picture has its own background, so it is readable on a light and on a dark page. It names no font of its own, since
a page that shows an SVG as an image loads none.
"""

import io

from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

# The background, the foreground, and the eight colours of a terminal, normal and bright.
_THEME = TerminalTheme(
    (30, 34, 42),
    (220, 223, 228),
    [
        *((63, 69, 81), (224, 108, 117), (152, 195, 121), (229, 192, 123)),
        *((97, 175, 239), (198, 120, 221), (86, 182, 194), (171, 178, 191)),
    ],
    [
        *((110, 118, 135), (240, 128, 136), (170, 215, 140), (240, 205, 140)),
        *((120, 190, 250), (215, 140, 240), (110, 205, 215), (255, 255, 255)),
    ],
)

# rich's own template loads a font from another host. The names of the fields are those of rich.
_FORMAT = """\
<svg viewBox="0 0 {width} {height}" xmlns="http://www.w3.org/2000/svg" role="img" xml:space="preserve">
<style>
.{unique_id}-matrix {{
  font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", "Liberation Mono", monospace;
  font-size: {char_height}px; line-height: {line_height}px; white-space: pre;
}}
.{unique_id}-title {{ font-size: 16px; font-family: system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""
_ASPECT = 0.602  # width of a character divided by its height, in DejaVu Sans Mono and most other fonts


def drawn(screen: str, title: str, name: str, width: int = 80) -> str:
    """Return the SVG of a terminal of `width` columns.

    screen: the lines, with escape sequences for colours and attributes (tmux(1), capture-pane -e). name: the prefix of
    the identifiers in the SVG.
    """
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(Text.from_ansi(screen.rstrip()), no_wrap=True, overflow="ignore", crop=False)
    svg = console.export_svg(title=title, theme=_THEME, code_format=_FORMAT, font_aspect_ratio=_ASPECT, unique_id=name)
    return "".join(f"{line.strip()}\n" for line in svg.splitlines() if line.strip())

"""A terminal's text as an SVG: terminal.py < CAPTURE > terminal.svg. CAPTURE is what `tmux capture-pane -p` prints."""
import sys
from xml.sax.saxutils import escape

COLUMN, LINE, MARGIN = 8.4, 18, 16
text = sys.stdin.read().rstrip("\n").split("\n")
width, height = max(map(len, text)) * COLUMN + 2 * MARGIN, len(text) * LINE + 2 * MARGIN
print('<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">' % (width, height, width, height))
print('<rect width="100%" height="100%" rx="8" fill="#16181d"/>')
print('<g font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="14" fill="#d8dee9" xml:space="preserve">')
for i, line in enumerate(text):
    color = ' fill="#8fbf7f"' if line.startswith("$ ") else ""
    print('<text x="%d" y="%.0f"%s textLength="%.0f">%s</text>' % (MARGIN, MARGIN + (i + 0.8) * LINE, color, len(line) * COLUMN, escape(line)) if line else "")
print("</g></svg>")

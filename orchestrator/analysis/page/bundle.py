"""The charting library that every page carries: Vega, Vega-Lite and Vega-Embed. The only door to vl-convert."""

from __future__ import annotations

import functools

_EXPOSED = "window.vegaEmbed = vegaEmbed;"
_NOTICE = """/*! Vega, Vega-Lite and Vega-Embed. Copyright 2015-2026 University of Washington Interactive Data Lab.
Licensed under the BSD 3-Clause License. */
"""


@functools.cache
def charting_library() -> str:
    """The library as a script that stands between script tags, about 0.9 MB. Made once a process, in about a second."""
    import vl_convert  # here: tables and answers do without it

    script = vl_convert.javascript_bundle(_EXPOSED)
    return _NOTICE + script.replace("</script", r"<\/script").replace("<!--", r"<\!--")

"""The reference of the C++ headers: Doxygen reads them, Breathe shows them, and each opens with its own first comment.

``.. cpp-headers:: resources`` is a section for each public header of that folder of the core, or for a header alone.
What Doxygen warns of, Sphinx warns of. Where Doxygen is missing the pages say so, and the rest of the site is built.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from docutils import nodes
from docutils.statemachine import StringList
from public_headers import CORE, public_headers
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import nested_parse_with_titles

MISSING = "The C++ reference is missing: Doxygen was not there when these pages were made (apt-get install doxygen)."

# The filters make those of C comments that Doxygen reads, and leave out the inline namespace, which nobody names.
SETTINGS = r"""
INPUT = {input}
STRIP_FROM_PATH = {core}
OUTPUT_DIRECTORY = {output}
GENERATE_XML = YES
GENERATE_HTML = NO
GENERATE_LATEX = NO
XML_PROGRAMLISTING = NO
EXTRACT_ALL = YES
EXTRACT_PRIV_VIRTUAL = YES
AUTOLINK_SUPPORT = NO
QUIET = YES
WARN_FORMAT = "$file:$line: $text"
MACRO_EXPANSION = YES
EXPAND_ONLY_PREDEF = YES
PREDEFINED = CENOTE_API= __cplusplus
FILTER_PATTERNS = "*.h=sed -e '2,$s#^/\* \([^-]\)#/** \1#' -e 's#\([;,0-9]\)  *\/\* \(.*\*/\)$#\1 /**< \2#'" \
    "*.hpp=sed -e 's#^inline namespace v[0-9]* {{##' -e 's#^}}  // namespace v[0-9]*##' -e 's#CENOTE_EXPORT ##'"
"""

_logger = logging.getLogger(__name__)


def read_headers(output: Path) -> list[str]:
    """Let Doxygen read the public headers and write its XML below `output`; returns what it warns of."""
    output.mkdir(parents=True, exist_ok=True)
    headers = " ".join(f'"{CORE / header}"' for header in public_headers())
    settings = SETTINGS.format(input=headers, core=CORE, output=output)
    done = subprocess.run(["doxygen", "-"], input=settings, capture_output=True, text=True, cwd=output, check=False)
    # Doxygen looks for `std` itself when a template of it is specialised (1.9.4).
    said = [line for line in done.stderr.splitlines() if line.strip() and "scope for class std::" not in line]
    return said if done.returncode == 0 else [*said, f"doxygen ends with {done.returncode}"]


def opening_comment(header: Path) -> str:
    """Return the comment that a header begins with, without its slashes or stars."""
    text = header.read_text(encoding="utf-8")
    if text.startswith("/*"):
        return re.sub(r"^ ?\* ?", "", text[2 : text.index("*/")].strip(), flags=re.MULTILINE)
    comment = re.match(r"(?://[^\n]*\n)*", text)
    return re.sub(r"^// ?", "", comment[0] if comment else "", flags=re.MULTILINE)


def as_rst(comment: str) -> str:
    """Return a comment as reStructuredText: prose as paragraphs; lists, tables and pictures as they stand."""

    def prose(paragraph: str) -> str:
        parts = re.split(r"`([^`]+)`", paragraph)
        parts[::2] = [re.sub(r"([*_|\\])", r"\\\1", part) for part in parts[::2]]
        return "".join(f"``{part}``" if i % 2 else part for i, part in enumerate(parts))

    blocks = []
    for paragraph in re.split(r"\n\s*\n", comment.strip("\n")):
        lines = paragraph.splitlines()
        if any(line.startswith((" ", "|")) for line in lines):
            first = lines.pop(0) if not lines[0].startswith((" ", "|")) else None
            blocks += [prose(first)] if first else []
            blocks.append("::\n\n" + "\n".join("   " + line for line in lines))
        else:
            blocks.append(prose(paragraph))
    return "\n\n".join(blocks)


def declarations(xml: Path, header: str) -> list[str]:
    """Return Breathe's directives for what a header declares, in its order, as Doxygen's XML has it."""
    found: dict[str, tuple[int, list[str]]] = {}
    for compound in xml.glob("*.xml"):
        root = ElementTree.parse(compound).getroot()
        for entity in root.iter():
            place, kind = entity.find("location"), entity.get("kind", "")
            if place is None or place.get("file") != header:
                continue
            lines: list[str] = []
            if entity.tag == "compounddef" and kind in ("class", "struct") and entity.get("prot") == "public":
                name = entity.findtext("compoundname", "")
                if re.fullmatch(r"(cenote::|cenote_)\w+", name):  # those in a class come with it
                    to_override = entity.find(".//memberdef[@prot='private'][@virt='pure-virtual']") is not None
                    shown = [":members:", ":undoc-members:", *[":private-members:"] * to_override]
                    lines = [f".. doxygen{kind}:: {name}", *(f"   {option}" for option in shown), ""]
            elif entity.tag == "memberdef" and root[0].get("kind") in ("namespace", "file"):
                words = entity.findtext("definition", "").split()
                if kind == "typedef" and words[-2:-1] == words[-1:]:
                    continue  # C's second name of a struct or enum
                if kind == "define" and not "".join(entity.find("detaileddescription").itertext()).strip():
                    continue  # a guard
                name = entity.findtext("qualifiedname") or entity.findtext("name", "")
                arguments = entity.findtext("argsstring", "") if kind == "function" else ""
                lines = [f".. doxygen{kind}:: {name}{re.sub(r' *= *default$', '', arguments)}", ""]
            if lines:
                found[entity.get("id", "")] = int(place.get("line", 0)), lines
    return [line for _, lines in sorted(found.values()) for line in lines]


class CppHeaders(SphinxDirective):
    """``.. cpp-headers:: FOLDER``, or a header: what the opening of this file says."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Make the sections."""
        if not self.config.breathe_projects:
            return [nodes.note("", nodes.paragraph("", MISSING))]
        below = f"cenote/{self.arguments[0]}"
        lines: list[str] = []
        for header in public_headers():
            if header == below or header.startswith(below + "/"):
                self.env.note_dependency(str(CORE / header))
                lines += [header, "-" * len(header), "", *as_rst(opening_comment(CORE / header)).splitlines(), ""]
                lines += declarations(Path(self.config.breathe_projects["cenote"]), header)
        if not lines:
            raise self.error(f"there is no public header {below}")
        made = nodes.section()
        made.document = self.state.document
        nested_parse_with_titles(self.state, StringList(lines, self.get_source_info()[0]), made)
        return made.children


def choose_project(app: Any, config: Any) -> None:
    """Tell Breathe where Doxygen's XML is, or nothing where there is no Doxygen."""
    if shutil.which("doxygen") is None:
        _logger.info(MISSING)
        return
    output = Path(app.doctreedir) / "doxygen"
    config.breathe_projects = {"cenote": str(output / "xml")}
    config.breathe_default_project = "cenote"
    for warning in read_headers(output):
        _logger.warning(warning)


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx, which calls this."""
    app.setup_extension("breathe")
    app.add_directive("cpp-headers", CppHeaders)
    app.connect("config-inited", choose_project)
    return {"parallel_read_safe": True, "parallel_write_safe": True}

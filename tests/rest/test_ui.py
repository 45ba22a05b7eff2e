"""The dashboard's files, as they are served."""

from __future__ import annotations

import re
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import kvdb.rest
from kvdb.rest.ui import CONTENT_SECURITY_POLICY, assets
from tests.rest.local import Server

FILES = Path(kvdb.rest.__file__).parent / "ui"


class Serving(SynchronousTestCase):
    """C{/_/ui/}."""

    def setUp(self) -> None:
        self.ask = Server().ask

    def test_every_file_is_served_by_its_name(self) -> None:
        names = sorted(path.name for path in FILES.iterdir())
        self.assertEqual(sorted(assets()), names)
        for name in names:
            reply = self.ask("GET", f"/_/ui/{name}")
            self.assertEqual(reply.status, 200)
            self.assertEqual(reply.body, (FILES / name).read_bytes())

    def test_types(self) -> None:
        for name, kind in (
            ("", "text/html; charset=utf-8"),
            ("index.html", "text/html; charset=utf-8"),
            ("app.js", "text/javascript; charset=utf-8"),
            ("style.css", "text/css; charset=utf-8"),
            ("logo.svg", "image/svg+xml"),
            ("uPlot.LICENSE.txt", "text/plain; charset=utf-8"),
        ):
            reply = self.ask("GET", f"/_/ui/{name}")
            self.assertEqual(reply.headers["content-type"], kind)

    def test_what_protects_it(self) -> None:
        for name in ("", "app.js"):
            for reply in (
                self.ask("GET", f"/_/ui/{name}"),
                self.ask("GET", f"/_/ui/{name}", If_None_Match="*"),
            ):
                headers = reply.headers
                self.assertEqual(
                    headers["content-security-policy"], CONTENT_SECURITY_POLICY.lower()
                )
                self.assertEqual(headers["x-content-type-options"], "nosniff")
                self.assertEqual(headers["referrer-policy"], "no-referrer")
                self.assertEqual(headers["cross-origin-opener-policy"], "same-origin")
                self.assertEqual(headers["cross-origin-resource-policy"], "same-origin")
                self.assertEqual(headers["cache-control"], "no-cache")
        for source in ("unsafe-inline", "unsafe-eval", "data:", "*"):
            self.assertNotIn(source, CONTENT_SECURITY_POLICY)

    def test_who_has_it_already_is_told_so(self) -> None:
        for name in ("", "app.js"):
            tag = self.ask("GET", f"/_/ui/{name}").headers["etag"]
            for wanted in (tag, f"W/{tag}", f'"other", {tag}', "*"):
                reply = self.ask("GET", f"/_/ui/{name}", If_None_Match=wanted)
                self.assertEqual((reply.status, reply.body), (304, b""))
                self.assertEqual(reply.headers["etag"], tag)
            reply = self.ask("GET", f"/_/ui/{name}", If_None_Match='"other"')
            self.assertEqual(reply.status, 200)
        self.assertEqual(self.ask("GET", "/_/ui/", If_None_Match="bare").status, 400)

    def test_tags_tell_files_apart(self) -> None:
        tags = {asset.tag for asset in assets().values()}
        self.assertEqual(len(tags), len(assets()))

    def test_head(self) -> None:
        for name in ("", "app.js"):
            got = self.ask("GET", f"/_/ui/{name}")
            head = self.ask("HEAD", f"/_/ui/{name}")
            self.assertEqual((head.status, head.body), (200, b""))
            got.headers.pop("date")
            head.headers.pop("date")
            self.assertEqual(head.headers, got.headers)

    def test_the_slash(self) -> None:
        for method in ("GET", "HEAD"):
            reply = self.ask(method, "/_/ui")
            self.assertEqual(reply.status, 308)
            self.assertEqual(reply.headers["location"], "/_/ui/")

    def test_other_methods(self) -> None:
        for path in ("/_/ui", "/_/ui/", "/_/ui/app.js", "/_/ui/none"):
            for method in ("PUT", "POST", "DELETE", "PATCH", "OPTIONS"):
                reply = self.ask(method, path, b"")
                self.assertEqual((method, path, reply.status), (method, path, 405))
                self.assertEqual(reply.headers["allow"].upper(), "GET, HEAD")

    def test_no_path_leads_to_another_file(self) -> None:
        for path in (
            "/_/ui/none",
            "/_/ui/../ui.py",
            "/_/ui/..%2Fui.py",
            "/_/ui/%2e%2e/ui.py",
            "/_/ui//app.js",
            "/_/ui/app.js/",
            "/_/ui/APP.JS",
            "/_/ui/__init__.py",
            "/_/ui/app%2Ejs",
        ):
            self.assertEqual((path, self.ask("GET", path).status), (path, 404))
        self.assertEqual(self.ask("GET", "/_/ui/?x=1").status, 400)


class Files(SynchronousTestCase):
    """What is in them."""

    def test_the_page_names_files_that_are_there(self) -> None:
        text = (FILES / "index.html").read_text()
        named = re.findall(r'(?:src|href)="([^"#]+)"', text)
        self.assertTrue(named)
        self.assertLessEqual(set(named), set(assets()))
        for path in FILES.glob("*.js"):
            imported = re.findall(r'from "\./([^"]+)"', path.read_text())
            self.assertLessEqual(set(imported), set(assets()), path.name)

    def test_nothing_is_loaded_from_elsewhere_and_nothing_is_inline(self) -> None:
        page = (FILES / "index.html").read_text()
        for wrong in (r"\son\w+=", r"\sstyle=", "<style", r"<script(?![^>]*\ssrc=)"):
            self.assertIsNone(re.search(wrong, page), wrong)
        own = [p for p in FILES.iterdir() if not p.name.startswith("uPlot")]
        for path in own:
            text = path.read_text().replace("http://www.w3.org/2000/svg", "")
            for wrong in ("innerHTML", "outerHTML", "insertAdjacentHTML", "eval("):
                self.assertNotIn(wrong, text, path.name)
            self.assertIsNone(re.search(r'(?:src|href)="(?:https?:)?//', text))
            self.assertNotIn("@import", text)
            if path.suffix == ".css":
                self.assertNotIn("url(", text)

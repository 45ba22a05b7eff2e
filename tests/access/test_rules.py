"""What an access file says, and what is wrong in one."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from kvdb.access.rules import Principal, parse_access
from kvdb.access.secrets import MAX_SECRET_BYTES, hash_secret, parse_hashed
from tests.access.files import ROLES, access, cheap

SECRET = cheap(b"s")


class Rules(SynchronousTestCase):
    def test_roles_add_up(self) -> None:
        found = parse_access(
            f"""
            [roles.a]
            read = ["/a/", "/c/"]
            [roles.b]
            read = ["/b/", "/c/"]
            write = ["/b/"]
            metrics = true
            [users.ann]
            secret = "{SECRET}"
            roles = ["a", "b"]
            [anonymous]
            roles = ["a"]
            """.encode()
        )
        self.assertEqual(
            found.users["ann"].principal,
            Principal(
                "ann", (b"/a/", b"/c/", b"/b/"), (b"/b/",), admin=False, metrics=True
            ),
        )
        self.assertEqual(found.anonymous, Principal(None, (b"/a/", b"/c/")))

    def test_json_says_the_same(self) -> None:
        whole = {
            "roles": {"é" * 0 + "a": {"read": ["/é/"], "admin": True}},
            "users": {"ann": {"secret": SECRET, "roles": ["a"]}},
        }
        found = parse_access(json.dumps(whole).encode())
        expected = Principal("ann", ("/é/".encode(),), admin=True)
        self.assertEqual(found.users["ann"].principal, expected)

    def test_nothing_said_is_nothing_granted(self) -> None:
        found = parse_access(b"")
        self.assertEqual((dict(found.users), found.anonymous), ({}, Principal(None)))
        self.assertFalse(found.anonymous.is_known)
        self.assertTrue(access().users["nobody"].principal.is_known)

    def test_what_is_wrong_is_named(self) -> None:
        user = f'[users.ann]\nsecret = "{SECRET}"\n'
        for text, reason in (
            ("x", "is not TOML"),
            ("{", "is not JSON"),
            ("\udcff", "is not TOML"),
            ("[users.ann]\n[users.bob]\n[users.ann]\n", "twice (at line 3"),
            ("[role.a]", "the file has 'role'; known there: anonymous, roles, users"),
            ("roles = 1", "roles is not a table"),
            ("[roles]\na = 1", "roles.a is not a table"),
            ("[roles.'a b']", "'a b' is no role's name"),
            ("[roles.a]\nreads = []", "roles.a has 'reads'"),
            ("[roles.a]\nread = '/'", "roles.a.read is not a list of prefixes"),
            ("[roles.a]\nread = [1]", "roles.a.read is not a list of prefixes"),
            ("[roles.a]\nwrite = ['a/']", "has 'a/'; a prefix begins with a slash"),
            ("[roles.a]\nadmin = 1", "roles.a.admin is not true or false"),
            ("[users.ann]", "users.ann has no secret"),
            ("[users.ann]\nsecret = 'hunter2'", "users.ann.secret is not of the form"),
            ("[users.'a.b']", "'a.b' is no user's name"),
            (user + "roles = 'a'", "users.ann.roles is not a list"),
            (user + "roles = ['a']", "users.ann.roles has 'a'; the roles are: none"),
            (user + "password = 'a'", "users.ann has 'password'"),
            (ROLES + user + "roles = ['a']", "are: admin, metrics, reader, writer"),
            ("[anonymous]\nread = ['/']", "anonymous has 'read'"),
        ):
            data = text.encode("utf-8", "surrogateescape")
            error = self.assertRaises(ValueError, parse_access, data)
            self.assertIn(reason, str(error))
            self.assertNotIn("\n", str(error).replace("\\n", ""))
            self.assertNotIn("hunter2", str(error))

    @given(st.one_of(st.binary(max_size=300), st.text(max_size=300).map(str.encode)))
    def test_any_bytes_are_a_file_or_a_reason(self, data: bytes) -> None:
        try:
            parse_access(data)
        except ValueError as error:
            self.assertNotIn("\n", str(error))

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(
                        ["roles", "users", "anonymous", "read", "admin", "secret", "a"]
                    ),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        )
    )
    def test_any_shape_is_a_file_or_a_reason(self, shape: object) -> None:
        data = json.dumps({"users": shape, "roles": shape}).encode()
        try:
            found = parse_access(data)
        except ValueError as error:
            self.assertTrue(str(error))
        else:
            self.assertFalse(found.anonymous.is_known)

    def test_bounds(self) -> None:
        many = ", ".join(f"'/{n}/'" for n in range(257))
        text = f"[roles.a]\nread=[{many}]\n[anonymous]\nroles=['a']"
        error = self.assertRaises(ValueError, parse_access, text.encode())
        self.assertIn("more than 256 prefixes", str(error))
        users = {f"u{n}": {"secret": SECRET} for n in range(10_001)}
        data = json.dumps({"users": users}).encode()
        error = self.assertRaises(ValueError, parse_access, data)
        self.assertIn("10000 may be", str(error))


class Secrets(SynchronousTestCase):
    def test_there_and_back(self) -> None:
        hashed = hash_secret("pässword".encode(), b"0123456789abcdef")
        again = parse_hashed(str(hashed))
        self.assertEqual(again, hashed)
        self.assertTrue(again.matches("pässword".encode()))
        self.assertFalse(again.matches(b"password"))
        self.assertNotIn("word", str(hashed))

    def test_as_others_make_them(self) -> None:
        """RFC 7914, section 12, the third vector, cut to 32 bytes."""
        text = (
            "$scrypt$ln=14,r=8,p=1$U29kaXVtQ2hsb3JpZGU$"
            "cCO9yzr9c0hGHAbNgf046/2o+7qQT44+qbVD9lRdofI"
        )
        self.assertTrue(parse_hashed(text).matches(b"pleaseletmein"))

    def test_what_is_none_is_refused(self) -> None:
        for text, reason in (
            ("", "is not of the form"),
            ("$2b$12$abc", "is not of the form"),
            ("$scrypt$ln=9,r=8,p=1$AAAA$AAAA", "out of bounds"),
            ("$scrypt$ln=18,r=16,p=1$AAAA$AAAA", "more than 32 MiB"),
            ("$scrypt$ln=14,r=8,p=1$A$AAAA", "bad Base64"),
            ("$scrypt$ln=14,r=8,p=1$AAAA$AAAA", "of a wrong length"),
        ):
            error = self.assertRaises(ValueError, parse_hashed, text)
            self.assertIn(reason, str(error))

    @given(
        st.binary(min_size=1, max_size=MAX_SECRET_BYTES),
        st.binary(min_size=1, max_size=MAX_SECRET_BYTES),
    )
    def test_one_secret_only(self, secret: bytes, other: bytes) -> None:
        hashed = parse_hashed(cheap(secret))
        self.assertTrue(hashed.matches(secret))
        self.assertEqual(hashed.matches(other), other == secret)

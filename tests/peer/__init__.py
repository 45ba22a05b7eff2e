"""Tests of the members' connections."""

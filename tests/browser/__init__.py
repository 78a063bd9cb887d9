"""Tests in a real browser: `make test-browser`; they need Chromium or Chrome."""

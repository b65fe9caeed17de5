"""Answers on demand: experts kept ready, requests of many callers batched on one device."""

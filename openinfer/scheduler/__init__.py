"""Requests from asyncio → batches → kernels: one bounded queue, earliest deadline first, and a pool for what blocks."""

"""Engines that the benchmark can call, one file each; `profiles.bench` lists them."""

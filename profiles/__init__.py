"""Instruments and the record they write; read by the report, the notebook and the tuner."""

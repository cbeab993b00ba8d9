"""Decoders and their derivatives: the protocols that a decoder may satisfy, Jacobians and second derivatives of any
decoder, formulas where torch's own rule is missing or wrong, and what `check_generator` reports. Uses `batches`."""

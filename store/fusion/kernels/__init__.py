"""The arithmetic of ConDU on one chunk, three times: plain, compiled for the CPU, in torch for any device.

The three give the same unified delta and the same masks, bit for bit; sums agree to 1e-12.
"""

from store.fusion.kernels.contract import ChunkSums, Kernels
from store.fusion.kernels.device import DeviceKernels
from store.fusion.kernels.fused import FusedKernels
from store.fusion.kernels.reference import ReferenceKernels

__all__ = ["ChunkSums", "DeviceKernels", "FusedKernels", "Kernels", "ReferenceKernels"]

"""The fast generator: packed reasoning trees and ragged batches on the engine's fused graph."""

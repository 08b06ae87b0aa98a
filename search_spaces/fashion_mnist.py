"""Fashion-MNIST from the networks of the MNIST space, within the same limits."""

from dataclasses import replace

from search_spaces import mnist

SPACE = replace(mnist.SPACE, dataset="fashion_mnist", target=0.92, baseline=None)

"""Training tests run on one thread: threads that wait for each other make a busy machine crawl."""

import torch

torch.set_num_threads(1)

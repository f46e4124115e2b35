import torch

# As in every rule. The tensors of these tests are too small for threads to pay, and threads that wait
# for each other are slow beside any other load.
torch.set_num_threads(1)

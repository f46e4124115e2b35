"""What the pipeline adds to the method: data, training, attacks, statistics, figures."""

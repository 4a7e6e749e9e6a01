"""What published weights expect of pixels between 0 and 1: the channel statistics of ImageNet."""

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

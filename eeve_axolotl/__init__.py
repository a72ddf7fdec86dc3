"""EEVE for Axolotl: extend a tokenizer, initialise the new rows, train seven stages.

Source: "Efficient and Effective Vocabulary Expansion Towards Multilingual Large Language Models"
(arXiv 2402.14714) and the model card of EEVE-Korean-10.8B-v1.0.
"""

__version__ = "0.1.0"

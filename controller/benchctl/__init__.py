"""benchctl: which server should I rent to run this LLM, and what will a million tokens cost on it?"""

__version__ = "0.1.0"

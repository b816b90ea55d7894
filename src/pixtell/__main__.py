"""python -m pixtell"""

from pixtell.cli import main

main()

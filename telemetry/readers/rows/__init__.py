"""Tables of records in text: lines or JSON in, columns of texts, numbers, raw batches out.

A reader of such a format is a `reader.RowsReader`, names its columns (`records.Layout`), and
does little else:

* `texts` turns chunks of lines into columns of texts, by name;
* `numbers` turns texts into numbers, and notes the rows that do not parse;
* `records` turns numbers into a raw batch, and counts every row;
* `kernels` holds what is compiled;
* `objects` finds JSON objects, `shaping` changes columns, `programs` runs other tools.
"""

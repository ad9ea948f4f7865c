drop function tables_measure();

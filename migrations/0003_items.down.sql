drop table counters;
drop table items;

drop table conversation_summaries;
